"""What is measured of a cloud of rows, and what chance alone gives. Pure functions of small arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from wake2vec.show.geometry.matrix import unit

Doubles = npt.NDArray[np.float64]


def welch_t(a: Doubles, b: Doubles) -> float:
    """Welch's t of the means of two samples with variances of their own. Welch 1947, Biometrika 34."""
    spread = a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b)
    return _ratio(float(a.mean() - b.mean()), math.sqrt(spread))


def cohens_d(a: Doubles, b: Doubles) -> float:
    """Difference of the means in standard deviations, (a - b) / sqrt((var a + var b) / 2). Cohen 1988."""
    return _ratio(float(a.mean() - b.mean()), math.sqrt((float(a.var(ddof=1)) + float(b.var(ddof=1))) / 2))


def isotropy_of_rows(rows: Doubles) -> float:
    """min Z / max Z with Z_i = sum over j != i of exp(cos(i, j)) + 1, after centring: as in the original scripts.

    1 is even in all directions; but in many dimensions every cosine is near 0, and a random cloud is near 1 too.
    """
    near = unit(rows - rows.mean(0))
    cosines = near @ near.T
    np.fill_diagonal(cosines, 0.0)
    z = np.exp(cosines, out=cosines).sum(1)
    return float(z.min() / z.max())


def isotropy_of_axes(rows: Doubles) -> float:
    """min Z(c) / max Z(c), Z(c) = sum of exp(c · row) over unit rows, c the eigenvectors of rowsᵀ rows, both ways.

    Mu and Viswanath 2018, "All-but-the-top", equation 1, on centred rows of length 1.
    """
    near = unit(rows - rows.mean(0))
    if len(near) < near.shape[1]:  # as many axes as rows, found among the rows: the others hold nothing
        values, turns = np.linalg.eigh(near @ near.T)
        held = values > 1e-9 * values[-1]
        along = turns[:, held] * np.sqrt(values[held])
    else:
        along = near @ np.linalg.eigh(near.T @ near)[1]
    ahead = np.exp(along, out=along).sum(0)
    behind = np.reciprocal(along, out=along).sum(0)  # exp(-x) is 1 / exp(x)
    z = np.concatenate([ahead, behind])
    return float(z.min() / z.max())


def participation_ratio(eigenvalues: Doubles) -> float:
    """(sum λ)² / sum λ²: among how many dimensions the variance is shared evenly."""
    return _ratio(float(eigenvalues.sum()) ** 2, float((eigenvalues**2).sum()))


def dimensions_for(eigenvalues: Doubles, share: float) -> int:
    """How many of the largest eigenvalues hold this share of the variance. No cap: all of them are known."""
    ordered = np.sort(eigenvalues)[::-1]
    reached = ordered.cumsum() >= share * ordered.sum() * (1 - 1e-12)
    return int(reached.argmax()) + 1


def random_eigenvalues(n: int, d: int, *, steps: int = 4000) -> Doubles:
    """Eigenvalues of the covariance of n Gaussian rows in d dimensions, largest first.

    Quantiles of the law of Marchenko and Pastur 1967; below n = d the d - n others are 0.
    """
    ratio = d / n
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    # the substitution keeps the ends, where the density has square roots, finely divided
    angle = (np.arange(steps) + 0.5) * math.pi / steps
    value = low + (high - low) * (1 - np.cos(angle)) / 2
    weight = np.sqrt(np.maximum((high - value) * (value - low), 0)) / np.maximum(value, 1e-300) * np.sin(angle)
    reached = weight.cumsum() / weight.sum()
    count = min(n - 1, d) if n <= d else d
    at = (np.arange(count) + 0.5) / count
    found = np.interp(at, reached, value)[::-1]
    return np.concatenate([found, np.zeros(d - count)])


def pairwise_cosines(rows: Doubles) -> Doubles:
    """Cosines of all pairs, each once. [n (n - 1) / 2]"""
    near = unit(rows)
    upper = np.triu_indices(len(rows), 1)
    found: Doubles = (near @ near.T)[upper]
    return found


def kolmogorov_smirnov(a: Doubles, b: Doubles) -> float:
    """Largest distance between the two distribution functions, 0 to 1."""
    a, b = np.sort(a), np.sort(b)
    every = np.concatenate([a, b])
    below_a = np.searchsorted(a, every, side="right") / len(a)
    below_b = np.searchsorted(b, every, side="right") / len(b)
    return float(np.abs(below_a - below_b).max())


def cosines(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Doubles:
    """Cosine of each row with its partner; 1 where both are zero. [n]"""
    a, b = a.astype(np.float64), b.astype(np.float64)
    dot, length = (a * b).sum(1), np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    same = np.where((a == b).all(1), 1.0, 0.0)
    return np.where(length > 0, np.clip(dot / np.where(length > 0, length, 1), -1, 1), same)


def pip_loss(before: Doubles, after: Doubles) -> float:
    """‖A Aᵀ - B Bᵀ‖ / ‖A Aᵀ‖, Frobenius: how much the rows moved as seen from each other.

    Yin and Shen 2018, "On the dimensionality of word embedding"; a common rotation is no change.
    """
    products = before @ before.T
    return _ratio(float(np.linalg.norm(products - after @ after.T)), float(np.linalg.norm(products)))


def random_walk(before: Doubles, after: Doubles, chance: np.random.Generator) -> Doubles:
    """`before` moved as far as `after` is, each row in a random direction."""
    far = np.linalg.norm(after - before, axis=1, keepdims=True)
    return before + far * unit(chance.standard_normal(before.shape))


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else (0.0 if above == 0 else math.copysign(math.inf, above))
