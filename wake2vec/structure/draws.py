"""Draws that are pure functions of (seed, stream, step): no state in a checkpoint, the same on any plan or card."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wake2vec.data.permutation import hashes

Ints = npt.NDArray[np.int64]


def uniform(seed: int, stream: str, step: int, count: int) -> npt.NDArray[np.float64]:
    """`count` numbers in [0, 1)."""
    return (hashes(count, seed, _key(f"{stream}/{step}")) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def places(seed: int, stream: str, step: int, count: int, of: int) -> Tensor:
    """`count` places below `of`, with repetitions."""
    return torch.from_numpy((uniform(seed, stream, step, count) * of).astype(np.int64))


def permutation(seed: int, stream: str, step: int, count: int) -> Ints:
    """An order of `count` things."""
    return np.argsort(uniform(seed, stream, step, count), kind="stable").astype(np.int64)


def of_text(seed: int, stream: str, texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each text that its neighbours do not change."""
    return np.array([_key(f"{seed}/{stream}/{text}") * 2.0**-64 for text in texts])


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
