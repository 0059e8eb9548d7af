"""Cut token streams into training blocks and held-out windows.

Block i of length L is tokens[i*L : i*L + L + 1]: L inputs and, one further on, L targets. Neighbours share one token,
so that every token but the first is a target exactly once, and a block split in place keeps its targets in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from wake2vec.contract.errors import InputError
from wake2vec.data.permutation import Ints, hashes

IGNORED = -100
Shuffle = Literal["scikit-learn", "hashes"]

_BLOCKS_AT_ONCE = 1024
_BLOCK_SPLIT_STREAM = 0x424C4F43


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A stretch of tokens and, for each, where it ends in the UTF-8 bytes of its text."""

    ids: npt.NDArray[np.integer]
    byte_ends: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Held-out text: every token but the first of each span is a target once; the rest of a last window is padded."""

    inputs: Ints  # [windows, length]
    targets: Ints  # [windows, length], -100 where nothing is asked
    bytes: Ints  # [windows, length], UTF-8 bytes of text that a target stands for
    places: Ints  # [windows, length], where those bytes begin, counted through all held-out spans

    @classmethod
    def of(cls, stacked: Ints) -> Windows:
        """From one array `[4, windows, length]` in the order of the fields."""
        return cls(inputs=stacked[0], targets=stacked[1], bytes=stacked[2], places=stacked[3])

    def parts(self, tokens: int = 2048) -> list[slice]:
        """Windows that go through a model at once: as many as hold about so many tokens."""
        many = max(1, tokens // self.inputs.shape[1])
        return [slice(first, first + many) for first in range(0, len(self.inputs), many)]

    @property
    def n_bytes(self) -> int:
        return int(self.bytes.sum())


class TokenIds(Protocol):
    """Token ids in order: an array, or a stream on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> npt.NDArray[np.integer]: ...


class Blocks:
    """The training blocks of a token stream; the tail that fills no block is dropped."""

    def __init__(self, ids: TokenIds, length: int, *, place: object, only: Ints | None = None) -> None:
        """`only` lists the blocks to train on, all by default. Raises InputError when there is not even one."""
        self._ids, self.length = ids, length
        whole = max(0, (len(ids) - 1) // length)
        self._index = np.arange(whole) if only is None else only
        if len(self._index) == 0:
            raise InputError(
                place,
                f"the training text has {len(ids)} tokens, fewer than one block of {length} and its last target",
                "give a longer text or a smaller seq_len",
            )

    def __len__(self) -> int:
        return len(self._index)

    def block(self, index: int) -> tuple[Ints, Ints]:
        """Inputs and targets of one block, each `[length]`."""
        start = int(self._index[index]) * self.length
        tokens = np.asarray(self._ids[start : start + self.length + 1], dtype=np.int64)
        return tokens[:-1], tokens[1:]

    def batch(self, indices: Sequence[int] | Ints) -> tuple[Ints, Ints]:
        """Inputs and targets of several blocks, each `[blocks, length]`."""
        pairs = [self.block(int(index)) for index in indices]
        return np.stack([inputs for inputs, _ in pairs]), np.stack([targets for _, targets in pairs])

    def occurrences(self, n_ids: int) -> Ints:
        """How often each id is a target in one pass over all blocks, `[n_ids]`."""
        counts = np.zeros(n_ids, dtype=np.int64)
        for first in range(0, len(self), _BLOCKS_AT_ONCE):
            _, targets = self.batch(range(first, min(first + _BLOCKS_AT_ONCE, len(self))))
            counts += np.bincount(targets.ravel(), minlength=n_ids)
        return counts


def windows(spans: Iterable[Tokens], length: int, *, place: object) -> Windows:
    """Held-out windows of at most `length` targets. Raises InputError when no span has a second token."""
    parts = list(window_stacks(spans, length))
    if not parts:
        raise InputError(place, "no held-out span has two tokens", "give a longer text or a larger held-out fraction")
    return Windows.of(np.concatenate(parts, axis=1))


def window_stacks(spans: Iterable[Tokens], length: int) -> Iterator[Ints]:
    """The windows of one span after the other, `[4, windows, length]` in the order of the fields of Windows."""
    before = 0
    for span in spans:
        rows = _windows_of(span, length, before)
        before += int(span.byte_ends[-1]) if len(span.byte_ends) else 0
        if rows:
            yield np.array(rows, dtype=np.int64).swapaxes(0, 1)


def _windows_of(span: Tokens, length: int, before: int) -> list[list[Ints]]:
    ids, ends = np.asarray(span.ids, dtype=np.int64), span.byte_ends
    rows = []
    for start in range(0, len(ids) - 1, length):
        stop = min(start + length, len(ids) - 1)
        columns = (
            (ids[start:stop], 0),
            (ids[start + 1 : stop + 1], IGNORED),
            (ends[start + 1 : stop + 1] - ends[start:stop], 0),
            (before + ends[start:stop], 0),
        )
        rows.append([np.pad(values, (0, length - len(values)), constant_values=fill) for values, fill in columns])
    return rows


def split_blocks(
    n_blocks: int, *, fraction: float, seed: int, place: object, shuffle: Shuffle = "scikit-learn"
) -> tuple[Ints, Ints]:
    """Training and held-out blocks as the original scripts split them, by scikit-learn's `train_test_split`.

    Its stream is that of numpy's RandomState, which is promised never to change (NEP 19). `hashes` is the stream of
    jobs of the first release. Raises InputError when either side is empty.
    """
    held_out = int(np.ceil(n_blocks * fraction))
    if not 0 < held_out < n_blocks:
        raise InputError(place, f"{n_blocks} blocks cannot be split with {fraction:.0%} held out", "give a longer text")
    if shuffle == "scikit-learn":
        shuffled = np.random.RandomState(seed % 2**32).permutation(n_blocks).astype(np.int64)
        return np.sort(shuffled[held_out:]), np.sort(shuffled[:held_out])
    shuffled = np.argsort(hashes(n_blocks, seed, _BLOCK_SPLIT_STREAM), kind="stable").astype(np.int64)
    return np.sort(shuffled[:-held_out]), np.sort(shuffled[-held_out:])
