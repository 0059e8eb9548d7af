"""Which block is trained when: a pure function of (seed, position), the same on every machine and library version."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 0xFFFFFFFFFFFFFFFF


def block_at(position: int, n_blocks: int, seed: int) -> int:
    """The block that is trained at a position of the whole job, counted from 0."""
    epoch, place = divmod(position, n_blocks)
    return int(_permutation(n_blocks, seed, epoch)[place])


def blocks_of_step(step: int, batch: int, n_blocks: int, seed: int) -> Ints:
    """The `batch` blocks of one optimizer step; a step may begin in one epoch and end in the next."""
    start = step * batch
    return np.array([block_at(start + place, n_blocks, seed) for place in range(batch)], dtype=np.int64)


@lru_cache(maxsize=2)
def _permutation(n_blocks: int, seed: int, epoch: int) -> Ints:
    # A stable sort of hashes, not numpy's or torch's shuffle: their streams are not promised to stay the same.
    keys = hashes(n_blocks, seed, epoch)
    order = np.argsort(keys, kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order


def hashes(count: int, seed: int, stream: int) -> npt.NDArray[np.uint64]:
    """`count` 64-bit numbers, a function of (seed, stream) alone: splitmix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    start = mix((seed & _MASK) ^ mix((stream + 1) * _GOLDEN & _MASK))
    z = np.uint64(start) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def mix(value: int) -> int:
    """The finalizer of splitmix64 on one 64-bit number."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
