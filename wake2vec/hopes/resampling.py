"""Intervals by drawing units again, and how often luck alone goes as far. Pure; the same input, the same figures."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
DRAWS = 2000
Interval = tuple[float | None, float | None]


def ratio_interval(above: Doubles, below: Doubles) -> Interval:
    """95 % of sum(above) / sum(below) where both are known of each unit; nothing of a single one."""
    n = len(above)
    if n < 2:
        return None, None
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(np.float64)
    top, bottom = counts @ above, counts @ below
    return _middle(top[bottom > 0] / bottom[bottom > 0])


def mean_interval(values: Doubles) -> Interval:
    return ratio_interval(values, np.ones(len(values)))


def apart_interval(one: Doubles, other: Doubles) -> Interval:
    """95 % of mean(one) - mean(other), two groups that are drawn apart."""
    if min(len(one), len(other)) < 2:
        return None, None
    chance = np.random.default_rng(0)
    means = [chance.choice(part, size=(DRAWS, len(part))).mean(axis=1) for part in (one, other)]
    return _middle(means[0] - means[1])


def interval_of(n: int, measure: Callable[[npt.NDArray[np.int64]], float], draws: int) -> Interval:
    """95 % of any measure of n units that are drawn again."""
    chance = np.random.default_rng(0)
    return _middle(np.array([measure(chance.integers(0, n, n)) for _ in range(draws)]))


def p_of_signs(change: Doubles) -> float:
    """How often the sum is as far from 0 where the sign of each unit is luck (two-sided)."""
    signs = np.random.default_rng(1).choice([-1.0, 1.0], size=(DRAWS, len(change)))
    return _share(np.abs(signs @ change) >= abs(float(change.sum())) * (1 - 1e-12))


def p_of_labels(one: Doubles, other: Doubles) -> float:
    """How often two means are as far apart where the labels are luck (two-sided)."""
    chance, both = np.random.default_rng(1), np.concatenate([one, other])
    mixed = chance.permuted(np.broadcast_to(both, (DRAWS, len(both))), axis=1)
    apart = mixed[:, : len(one)].mean(axis=1) - mixed[:, len(one) :].mean(axis=1)
    return _share(np.abs(apart) >= abs(float(one.mean() - other.mean())) * (1 - 1e-12))


def at_least(right: int, of: int, chance: float) -> float:
    """Binomial: how often luck is right so often or more."""
    return sum(math.comb(of, k) * chance**k * (1 - chance) ** (of - k) for k in range(right, of + 1))


def _share(as_far: npt.NDArray[np.bool_]) -> float:
    return float((1 + as_far.sum()) / (1 + len(as_far)))


def _middle(values: Doubles) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
