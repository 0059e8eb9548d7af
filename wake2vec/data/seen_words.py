"""Which new words training has met so far: a function of the order of the blocks, so a resumed job knows it too."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wake2vec.data.blocks import Blocks
from wake2vec.data.permutation import blocks_of_step


class SeenWords:
    """Remembers up to which step it has looked, and looks only at what came since."""

    def __init__(
        self,
        blocks: Blocks,
        *,
        batch: int,
        seed: int,
        first_new_id: int,
        n_new: int,
        row_of: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """`row_of` says which word each new id belongs to, where several ids share a row."""
        self._row_of = row_of
        self._blocks, self._batch, self._seed = blocks, batch, seed
        self._first_new_id = first_new_id
        self._next = 0
        self._read: set[int] = set()
        self._met = np.zeros(n_new, dtype=bool)

    def up_to(self, step: int) -> npt.NDArray[np.bool_]:
        """New words among the inputs and targets of the steps 0 to `step`, both included. [n_new]"""
        if step < self._next - 1:
            self._forget()
        for number in range(self._next, step + 1):
            for index in set(blocks_of_step(number, self._batch, len(self._blocks), self._seed).tolist()) - self._read:
                self._read.add(index)
                self._look(index)
        self._next = step + 1
        return self._met

    def _look(self, index: int) -> None:
        inputs, targets = self._blocks.block(index)
        rows = np.concatenate([inputs[:1], targets]) - self._first_new_id
        found = rows[rows >= 0]
        self._met[found if self._row_of is None else self._row_of[found]] = True

    def first(self, steps: int) -> int | None:
        """The first of these steps that meets any new word; None where none does."""
        for step in range(steps):
            if self.up_to(step).any():
                return step
            if len(self._read) == len(self._blocks):
                return None
        return None

    def _forget(self) -> None:
        self._next = 0
        self._read.clear()
        self._met[:] = False
