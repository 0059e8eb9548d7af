"""What rows have of a structure, each figure beside what rows without one score. fp64 on the host unless said.

p is (b + 1) / (m + 1) with b of m permutations at least as good (Phipson and Smyth 2010), so it is never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wake2vec.structure import draws
from wake2vec.structure.chosen import Chosen
from wake2vec.structure.products import Cells, Inner

ROWS_AT_ONCE = 4096
COSINES = 4096  # drawn pairs of rows
NULL_PAIRS = 500  # that are permuted: of 1,500, hundreds of times, an evaluation of an 8B model took a minute more


def p_value(observed: float, null: np.ndarray) -> float:
    return float((np.count_nonzero(null >= observed) + 1) / (len(null) + 1))


def beside_null(observed: float, null: np.ndarray) -> dict[str, float]:
    found = {"value": observed, "null": float(null.mean()), "null_sd": float(null.std()), "p": p_value(observed, null)}
    return {key: round(value, 6) for key, value in found.items()}


# ---- directions ---------------------------------------------------------------------------------------------


def leave_one_out(offsets: Tensor, group: Tensor, groups: int) -> Tensor:
    """cos(d_i, mean of the other offsets of its group); about 0 for random rows, whatever the group's size. [p]"""
    sums = torch.zeros(groups, offsets.shape[1], dtype=offsets.dtype).index_add_(0, group, offsets)
    return F.cosine_similarity(offsets, sums[group] - offsets, dim=1)


def to_each_group(held: Tensor, offsets: Tensor, group: Tensor, groups: int) -> Tensor:
    """cos of offsets that no loss saw with the mean trained offset of every group. [h, g]"""
    sums = torch.zeros(groups, offsets.shape[1], dtype=offsets.dtype).index_add_(0, group, offsets)
    return F.normalize(held, dim=1) @ F.normalize(sums, dim=1).T


@dataclass(frozen=True, kw_only=True)
class Directions:
    """Of one moment: offsets without what all trained ones have in common, since a cloud that moves is no structure."""

    train: Tensor  # [p, d]
    held: Tensor  # [h, d]
    raw: Tensor  # [p, d]

    @classmethod
    def of(cls, words: Tensor, chosen: Chosen) -> Directions:
        """words [n, d] fp64"""
        train, held = chosen.train.offsets(words), chosen.held.offsets(words)
        return cls(train=train - train.mean(dim=0), held=held - train.mean(dim=0), raw=train)


def macro(values: Tensor, group: Tensor) -> float:
    """Mean over groups of their means: large groups weigh as small ones."""
    found = [float(values[group == one].mean()) for one in set(group.tolist())]
    return float(np.mean(found)) if found else 0.0


def consistency(now: Directions, start: Directions, chosen: Chosen, *, seed: int, nulls: int) -> dict[str, Any]:
    """Of trained and of held-out pairs, level and gain since the start; `held_out_gain` is what a claim rests on."""
    pairs, held, count = chosen.train, chosen.held, len(chosen.groups)
    level, before = (leave_one_out(one.train, pairs.group, count) for one in (now, start))
    near, near_before = (to_each_group(one.held, one.train, pairs.group, count) for one in (now, start))
    here = near[torch.arange(len(held)), held.group]
    gain = here - near_before[torch.arange(len(held)), held.group]
    found: dict[str, Any] = {
        "trained": mean_of(level),
        "trained_macro": macro(level, pairs.group),
        "trained_raw": mean_of(leave_one_out(now.raw, pairs.group, count)),
        "trained_gain": mean_of(level - before),
        "as_labelled": mean_of(leave_one_out(now.train, chosen.labels.group, count)),
        "held_out": mean_of(here),
        "held_out_macro": macro(here, held.group),
        "held_out_gain": mean_of(gain),
        "pairs": len(pairs),
        "held_out_pairs": len(held),
    }
    found = {key: round(value, 6) for key, value in found.items()}
    if len(held) and nulls:
        orders = [torch.from_numpy(draws.permutation(seed, "null-label", k, len(held))) for k in range(nulls)]
        labels = [held.group[order] for order in orders]
        place = torch.arange(len(held))
        found["held_out_null"] = beside_null(mean_of(here), each_of(labels, lambda one: mean_of(near[place, one])))
        moved = near - near_before
        found["held_out_gain_null"] = beside_null(
            mean_of(gain), each_of(labels, lambda one: mean_of(moved[place, one]))
        )
    return found


def trained_nulls(
    now: Directions, start: Directions, chosen: Chosen, points: Tensor, *, seed: int, nulls: int
) -> dict[str, Any]:
    """Trained pairs against three kinds of chance: other labels, other bases of the group, other contents of rows.

    All from inner products that are made once, and of no more than NULL_PAIRS pairs, group by group: hundreds of
    permutations of thousands of offsets as wide as an 8B model's would take minutes. points [t + f, d] fp64
    """
    drawn = draws.permutation(seed, "null-groups", 0, len(chosen.groups))
    kept = torch.argsort(torch.from_numpy(drawn)[chosen.train.group], stable=True)[:NULL_PAIRS]
    pairs = chosen.train.of(kept)
    cells, inner = Cells.of(pairs.group), Inner.of(points, chosen, pairs)

    def rebased(k: int) -> float:
        within = _within(pairs.group, draws.permutation(seed, "null-base", k, len(pairs)))
        places, shares = (torch.stack([part[:, 0], part[within, 1]], dim=1) for part in (inner.places, inner.shares))
        return mean_of(cells.leave_one_out(inner.products(places, shares, cells)))

    def refilled(k: int) -> float:
        order = torch.from_numpy(draws.permutation(seed, "null-row", k, len(inner.gram)))
        return mean_of(cells.leave_one_out(inner.products(order[inner.places], inner.shares, cells)))

    def relabelled(gram: Tensor, order: Tensor) -> float:
        return mean_of(cells.leave_one_out(gram[order[cells.left], order[cells.right]]))

    level, before = (one.train[kept] @ one.train[kept].T for one in (now, start))  # [p, p]
    as_is = torch.arange(len(pairs))
    orders = [torch.from_numpy(draws.permutation(seed, "null-train", k, len(pairs))) for k in range(nulls)]
    by_label, by_label_before = (each_of(orders, partial(relabelled, gram)) for gram in (level, before))
    observed, gain = relabelled(level, as_is), relabelled(level, as_is) - relabelled(before, as_is)
    return {
        "labels": beside_null(observed, by_label),
        "labels_gain": beside_null(gain, by_label - by_label_before),
        "bases": beside_null(observed, each_of(range(nulls), rebased)),
        "rows": beside_null(observed, each_of(range(nulls), refilled)),
    }


def held_out_nulls(words: Tensor, chosen: Chosen, *, seed: int, nulls: int) -> dict[str, Any]:
    """Held-out pairs beside the trained directions, against other bases of the group and other contents of rows.

    From inner products of the words of at most NULL_PAIRS pairs, as `trained_nulls`. words [n, d] fp64
    """
    drawn = torch.from_numpy(draws.permutation(seed, "null-held", 0, len(chosen.held)))
    held, train = chosen.held.of(drawn[:NULL_PAIRS].sort().values), chosen.train.offsets(words)
    mean, at = train.mean(dim=0), torch.arange(len(held))
    sums = torch.zeros(len(chosen.groups), len(mean), dtype=words.dtype).index_add_(0, chosen.train.group, train - mean)
    toward = F.normalize(sums[held.group], dim=1)  # [h, d]
    pool = torch.cat([words[held.word], words[held.base]])  # [2h, d]
    along, gram = pool @ toward.T, pool @ pool.T  # [2h, h], [2h, 2h]
    square, of_mean = gram.diagonal(), pool @ mean  # [2h]

    def value(word: Tensor, base: Tensor) -> float:
        """Mean of cos(word - base - mean, toward), for places in the pool. [h] twice"""
        across = along[word, at] - along[base, at] - toward @ mean
        length = square[word] + square[base] - 2 * (gram[word, base] + of_mean[word] - of_mean[base]) + mean @ mean
        return mean_of(across / length.clamp_min(1e-16).sqrt())

    def rebased(k: int) -> float:
        return value(at, len(held) + _within(held.group, draws.permutation(seed, "null-held-base", k, len(held))))

    def refilled(k: int) -> float:
        return value(*torch.from_numpy(draws.permutation(seed, "null-held-row", k, len(pool))).chunk(2))

    observed = value(at, len(held) + at)
    return {
        "bases": beside_null(observed, each_of(range(nulls), rebased)),
        "rows": beside_null(observed, each_of(range(nulls), refilled)),
    }


def _within(group: Tensor, order: np.ndarray) -> Tensor:
    """A permutation that leaves each place in its group. [p] → [p]"""
    drawn = torch.from_numpy(order)
    within = torch.empty_like(drawn)
    within[torch.argsort(group, stable=True)] = drawn[torch.argsort(group[drawn], stable=True)]
    return within


# ---- analogies ----------------------------------------------------------------------------------------------


@torch.no_grad()
def analogies(words: Tensor, chosen: Chosen, rows: Tensor) -> dict[str, float]:
    """Where the held-out word stands among all new rows near e(base) + mean trained offset, by cosine.

    Without the base itself; `nearest` leaves the offset out, which is the baseline of Linzen (2016). rows [n, d], in
    fp32 on their own device.
    """
    is_row = chosen.points[chosen.held.word, 0] < len(chosen.rows)
    word, base, group = (part[is_row] for part in (chosen.held.word, chosen.held.base, chosen.held.group))
    if not len(word):
        return {}
    offsets = chosen.train.offsets(words)
    member = chosen.train.member(len(chosen.groups), words)
    means = (member @ offsets) / member.sum(dim=1, keepdim=True)  # [g, d]
    target, own = (_row_of(chosen, one) for one in (word, base))
    ranks = rank(words[base] + means[group], rows, target, own)
    nearest = rank(words[base], rows, target, own)
    found = {"acc1": (ranks <= 1).double(), "acc10": (ranks <= 10).double(), "mrr": 1 / ranks.double()}
    found |= {"nearest_acc1": (nearest <= 1).double(), "nearest_mrr": 1 / nearest.double()}
    return {key: round(mean_of(value), 6) for key, value in found.items()} | {
        "pairs": len(word),
        "candidates": len(rows),
    }


def _row_of(chosen: Chosen, words: Tensor) -> Tensor:
    """The new row of each word, -1 for a published one."""
    first = chosen.points[words, 0]
    is_row = first < len(chosen.rows)
    rows = torch.cat([chosen.rows, chosen.rows.new_full((1,), -1)])
    return rows[torch.where(is_row, first, len(chosen.rows))]


def rank(asked: Tensor, rows: Tensor, target: Tensor, left_out: Tensor) -> Tensor:
    """1 + the rows nearer to what was asked than the target row, one row left out. [h, d], [n, d], [h], [h] → [h]"""
    asked = F.normalize(asked.to(rows), dim=1)
    target, left_out = target.to(rows.device), left_out.to(rows.device)
    wanted = (asked * F.normalize(rows[target], dim=1)).sum(dim=1, keepdim=True)
    found = torch.ones(len(asked), dtype=torch.int64, device=rows.device)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = F.normalize(rows[start : start + ROWS_AT_ONCE], dim=1)
        number = torch.arange(start, start + len(part), device=rows.device)
        counts = (number != target.unsqueeze(1)) & (number != left_out.unsqueeze(1))
        found += ((asked @ part.T > wanted) & counts).sum(dim=1)
    return found.cpu()


# ---- rows as such -------------------------------------------------------------------------------------------


@torch.no_grad()
def cosines(rows: Tensor, *, seed: int) -> dict[str, float]:
    """Mean cosine of drawn pairs of all new rows, as they are and without their mean: 0 for a cloud with no side."""
    left, right = (
        rows[draws.places(seed, side, 0, COSINES, len(rows)).to(rows.device)]
        for side in ("cosine-left", "cosine-right")
    )
    mean = rows.mean(dim=0)
    found = {"raw": (left, right), "centred": (left - mean, right - mean)}
    return {name: round(mean_of(F.cosine_similarity(*pair, dim=1)), 6) for name, pair in found.items()}


def moved(now: Tensor, start: Tensor) -> Tensor:
    """|e - e0| / |e0| of each row. [t, d] → [t]"""
    return torch.linalg.vector_norm(now - start, dim=1) / torch.linalg.vector_norm(start, dim=1).clamp_min(1e-12)


def difference(treated: Tensor, others: Tensor, *, seed: int, times: int) -> dict[str, Any]:
    """Of two means, with the middle 95 % of so many draws of the rows."""

    def drawn(values: Tensor, name: str) -> np.ndarray:
        count, stream = len(values), f"bootstrap-{name}"
        return each_of(range(times), lambda k: mean_of(values[draws.places(seed, stream, k, count, count)]))

    found: dict[str, Any] = {"treated": round(mean_of(treated), 6), "untreated": round(mean_of(others), 6)}
    if times and len(treated) and len(others):
        gaps = drawn(treated, "treated") - drawn(others, "untreated")
        found["interval"] = [round(float(one), 6) for one in np.quantile(gaps, (0.025, 0.975))]
    return found


def mean_of(values: Tensor) -> float:
    return float(values.double().mean()) if len(values) else 0.0


def each_of(items: Iterable[Any], value: Callable[[Any], float]) -> np.ndarray:
    """On one thread: permutations are thousands of short operations, at the end of each of which threads wait for one
    another. Four trainers with 16 threads each on 16 cores took 293 s for what two threads each did in 3."""
    with one_thread():
        return np.array([value(one) for one in items])


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
