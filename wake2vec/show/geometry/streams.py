"""Pass over large matrices a few thousand rows at a time: lengths, axes, neighbours, drift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wake2vec.show.geometry import measures
from wake2vec.show.geometry.matrix import Array, Matrix, Places, chunks, even_choice, unit
from wake2vec.show.geometry.measures import Doubles


@dataclass(frozen=True, kw_only=True)
class Moved:
    """How far a row is from where it started."""

    row: int
    cosine: float
    l2: float


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Every row against its start, and a choice of rows to compare with chance."""

    cosine: Doubles  # [n_new]
    l2: Doubles  # [n_new]
    before: Doubles  # [chosen, d]
    after: Doubles  # [chosen, d]

    @property
    def by_chance(self) -> Doubles:
        """Cosines of the start of one word and the end of another. [chosen]"""
        return measures.cosines(self.before, self.others)

    @property
    def others(self) -> Doubles:
        """The ends, each moved on to the next word. [chosen, d]"""
        return np.roll(self.after, 1, axis=0)

    def most(self, count: int) -> list[Moved]:
        return self._at(np.argsort(self.cosine, kind="stable")[:count])

    def least(self, count: int) -> list[Moved]:
        return self._at(np.argsort(-self.cosine, kind="stable")[:count])

    def _at(self, rows: Places) -> list[Moved]:
        return [Moved(row=int(row), cosine=float(self.cosine[row]), l2=float(self.l2[row])) for row in rows]


def norms(matrix: Matrix) -> Doubles:
    """Length of every row. [n]"""
    lengths = np.empty(matrix.shape[0])
    for first, rows in chunks(matrix):
        lengths[first : first + len(rows)] = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    return lengths


def eigenvalues(matrix: Matrix, most: int) -> Doubles:
    """Of the covariance of an even choice of at most `most` rows, largest first. [d]"""
    places = even_choice(matrix.shape[0], most)
    d = matrix.shape[1]
    total, products = np.zeros(d), np.zeros((d, d))
    for first in range(0, len(places), 4096):
        rows = matrix.take(places[first : first + 4096])
        total += rows.sum(0, dtype=np.float64)
        products += rows.T @ rows  # fp32 within a stretch, fp64 across: twice as fast and well below what is shown
    covariance = products / len(places) - np.outer(total, total) / len(places) ** 2
    return np.maximum(np.linalg.eigvalsh(covariance)[::-1], 0.0)


def nearest(matrix: Matrix, asked: Doubles, count: int) -> tuple[Places, Doubles]:
    """The `count` rows of `matrix` with the highest cosine to each asked row: ids and cosines. [asked, count]"""
    asked, count = unit(asked), min(count, matrix.shape[0])
    best = np.full((len(asked), count), -np.inf)
    ids = np.zeros((len(asked), count), dtype=np.int64)
    for first, rows in chunks(matrix):
        cosines = asked @ unit(rows.astype(np.float64)).T  # [asked, rows]
        every = np.concatenate([best, cosines], axis=1)
        every_id = np.concatenate([ids, np.broadcast_to(first + np.arange(len(rows)), cosines.shape)], axis=1)
        order = np.argsort(-every, axis=1, kind="stable")[:, :count]
        best, ids = np.take_along_axis(every, order, 1), np.take_along_axis(every_id, order, 1)
    return ids, best


def drift(new: Matrix, start: Matrix, choice: int) -> Drift:
    """Cosine and distance of every row to its start; `start` is read once, from its first row to its last."""
    cosine, l2 = np.empty(new.shape[0]), np.empty(new.shape[0])
    chosen = even_choice(new.shape[0], choice)
    kept: list[Array] = []
    for first, before in chunks(start):
        after = new.read(first, first + len(before))
        cosine[first : first + len(before)] = measures.cosines(before, after)
        l2[first : first + len(before)] = np.linalg.norm(after.astype(np.float64) - before, axis=1)
        inside = chosen[(chosen >= first) & (chosen < first + len(before))]
        kept.append(before[inside - first])
    after_kept = new.take(chosen).astype(np.float64)
    return Drift(cosine=cosine, l2=l2, before=np.concatenate(kept).astype(np.float64), after=after_kept)
