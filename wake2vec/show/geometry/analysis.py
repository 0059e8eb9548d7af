"""Measure new rows against base rows and against where they started, each figure with its value by chance beside it.

What needs all pairs or all axes is taken on an even choice of rows, the same ones every time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from wake2vec.contract.errors import InputError
from wake2vec.show.geometry import measures
from wake2vec.show.geometry.matrix import Matrix, even_choice
from wake2vec.show.geometry.measures import Doubles
from wake2vec.show.geometry.streams import Drift, drift, eigenvalues, nearest, norms

GAUSS = "By chance: a Gaussian cloud of the same size."
HALVES = "By chance: two random parts of the base rows."
OTHERS = "By chance: the start of one word and the end of another."


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many rows each kind of measure looks at; time and memory grow with them."""

    isotropy: int = 5000  # as in the original scripts
    pairs: int = 2000
    axes: int = 10_000
    neighbours: int = 20  # words
    nearest: int = 5


@dataclass(frozen=True)
class GeometryMeasure:
    """One figure, what luck alone would give in its place, and how to read it."""

    key: str
    name: str
    value: float
    chance: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """All figures, and what the plate draws."""

    measures: tuple[GeometryMeasure, ...]
    norms_new: Doubles  # [n_new]
    norms_base: Doubles  # [n_base]
    pairs_new: Doubles
    pairs_base: Doubles
    eigenvalues_new: Doubles  # [d], largest first, as the two below
    eigenvalues_base: Doubles
    eigenvalues_random: Doubles
    neighbours: dict[int, list[tuple[int, float]]] = field(default_factory=dict)  # new row: (base id, cosine)
    drift: Drift | None = None


def analyse(
    new: Matrix,
    base: Matrix,
    start: Matrix | None = None,
    *,
    sizes: Sizes | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Analysis:
    """`start`: the new rows before training. Same input, same figures. Raises InputError where rows are too few."""
    if new.shape[0] < 2 or base.shape[0] < 4:
        problem = f"{new.shape[0]} new and {base.shape[0]} base rows are too few to measure"
        raise InputError("geometry", problem, "add words to the lexicon")
    sizes, chance = sizes or Sizes(), np.random.default_rng(42)
    say("lengths")
    norms_new, norms_base = norms(new), norms(base)
    found = _lengths(norms_new, norms_base, chance)
    say("isotropy")
    found += _isotropy(new, base, sizes, chance)
    say("pairs")
    pairs_new, pairs_base = (_pairs(matrix, sizes.pairs) for matrix in (new, base))
    found += _pair_measures(pairs_new, pairs_base, base, sizes.pairs, chance)
    say("axes")
    eigenvalues_new, eigenvalues_base = (eigenvalues(matrix, sizes.axes) for matrix in (new, base))
    random = measures.random_eigenvalues(min(new.shape[0], sizes.axes), new.shape[1])
    found += _axes(eigenvalues_new, random)
    say("neighbours")
    near, measure = _neighbours(new, base, sizes, chance)
    found.append(measure)
    moved = None
    if start is not None:
        say("drift")
        moved = drift(new, start, sizes.pairs)
        found += _drift(moved, chance)
    return Analysis(
        measures=tuple(found),
        norms_new=norms_new,
        norms_base=norms_base,
        pairs_new=pairs_new,
        pairs_base=pairs_base,
        eigenvalues_new=eigenvalues_new,
        eigenvalues_base=eigenvalues_base,
        eigenvalues_random=random,
        neighbours=near,
        drift=moved,
    )


def _lengths(new: Doubles, base: Doubles, chance: np.random.Generator) -> list[GeometryMeasure]:
    # base rows with the labels shuffled: two samples that differ by luck alone
    mixed = chance.permutation(base)
    cut = min(len(new), len(base) // 2)
    one, other = mixed[:cut], mixed[cut:]
    t, d = measures.welch_t, measures.cohens_d
    beside = "In the place of chance: the mean length of the base rows."
    return [
        GeometryMeasure("norm", "mean length of the new rows", float(new.mean()), float(base.mean()), beside),
        GeometryMeasure("welch_t", "lengths, Welch t", t(new, base), t(one, other), f"New against base rows. {HALVES}"),
        GeometryMeasure(
            "cohens_d", "lengths, Cohen's d", d(new, base), d(one, other), f"New against base rows. {HALVES}"
        ),
    ]


def _isotropy(new: Matrix, base: Matrix, sizes: Sizes, chance: np.random.Generator) -> list[GeometryMeasure]:
    kinds = (
        ("rows", sizes.isotropy, measures.isotropy_of_rows, "min Z / max Z over rows, as in the original scripts."),
        ("axes", sizes.pairs, measures.isotropy_of_axes, "min Z / max Z over eigenvectors, Mu 2018."),
    )
    found = []
    for kind, most, measure, text in kinds:
        by_chance: dict[int, float] = {}
        for key, matrix in (("new", new), ("base", base)):
            rows = matrix.take(even_choice(matrix.shape[0], most)).astype(np.float64)
            if len(rows) not in by_chance:
                by_chance[len(rows)] = measure(chance.standard_normal(rows.shape))
            name, luck = f"isotropy over {kind}, {key} rows", by_chance[len(rows)]
            found.append(GeometryMeasure(f"isotropy_{kind}_{key}", name, measure(rows), luck, f"{text} {GAUSS}"))
    return found


def _pairs(matrix: Matrix, most: int) -> Doubles:
    return measures.pairwise_cosines(matrix.take(even_choice(matrix.shape[0], most)).astype(np.float64))


def _pair_measures(
    new: Doubles, base: Doubles, matrix: Matrix, most: int, chance: np.random.Generator
) -> list[GeometryMeasure]:
    mean, spread = f"Base rows: {base.mean():.4f}.", f"Base rows: {base.std():.4f}."
    places = chance.permutation(matrix.shape[0])[: 2 * most]
    one, other = (matrix.take(np.sort(half)).astype(np.float64) for half in np.array_split(places, 2))
    ks = measures.kolmogorov_smirnov
    luck = ks(measures.pairwise_cosines(one), measures.pairwise_cosines(other))
    text = f"Kolmogorov-Smirnov distance, 0 to 1. {HALVES}"
    directions = "By chance: random directions."
    width = matrix.shape[1] ** -0.5
    return [
        GeometryMeasure("pairs_mean", "cosine of two new rows, mean", float(new.mean()), 0.0, f"{mean} {directions}"),
        GeometryMeasure(
            "pairs_std", "cosine of two new rows, spread", float(new.std()), width, f"{spread} {directions}"
        ),
        GeometryMeasure("pairs_ks", "cosines of pairs, new against base", ks(new, base), luck, text),
    ]


def _axes(values: Doubles, random: Doubles) -> list[GeometryMeasure]:
    ratio, first = measures.participation_ratio, float(values[0] / max(values.sum(), 1e-300))
    text = f"(Σλ)² / Σλ² of {len(values)} axes. {GAUSS}"
    found = [
        GeometryMeasure("dimension", "effective dimension", ratio(values), ratio(random), text),
        GeometryMeasure("first_axis", "variance of the first axis", first, float(random[0] / random.sum()), GAUSS),
    ]
    for share in (0.9, 0.95):
        count, luck = (measures.dimensions_for(which, share) for which in (values, random))
        found.append(GeometryMeasure(f"axes_{share:.2f}", f"axes for {share:.0%} of the variance", count, luck, GAUSS))
    return found


def _neighbours(
    new: Matrix, base: Matrix, sizes: Sizes, chance: np.random.Generator
) -> tuple[dict[int, list[tuple[int, float]]], GeometryMeasure]:
    """The nearest base rows of a choice of new rows, and how near random rows come."""
    chosen = even_choice(new.shape[0], sizes.neighbours)
    sample = base.take(even_choice(base.shape[0], sizes.pairs)).astype(np.float64)
    random = sample.mean(0) + sample.std(0) * chance.standard_normal((len(chosen), base.shape[1]))
    asked = np.concatenate([new.take(chosen).astype(np.float64), random])
    ids, cosines = nearest(base, asked, sizes.nearest)
    near = {
        int(row): [(int(id), float(cosine)) for id, cosine in zip(ids[place], cosines[place], strict=True)]
        for place, row in enumerate(chosen)
    }
    mean, luck = float(cosines[: len(chosen), 0].mean()), float(cosines[len(chosen) :, 0].mean())
    text = f"Mean of {len(chosen)} words. By chance: random rows with the base's own mean and spread."
    return near, GeometryMeasure("nearest", "cosine to the nearest base token", mean, luck, text)


def _drift(moved: Drift, chance: np.random.Generator) -> list[GeometryMeasure]:
    far = float(np.linalg.norm(moved.before - moved.others, axis=1).mean())
    walked = measures.random_walk(moved.before, moved.after, chance)
    pip, luck = measures.pip_loss(moved.before, moved.after), measures.pip_loss(moved.before, walked)
    turned, length = float(moved.cosine.mean()), float(np.linalg.norm(moved.before, axis=1).mean())
    still = float((moved.l2 <= 1e-6 * length).mean())  # the start may have been cast to the body's dtype
    unreached = "Share of all new rows. In the place of chance: none, as every word should be reached."
    as_far = "Change as the rows see each other. By chance: moved as far, in random directions."
    return [
        GeometryMeasure(
            "drift_cosine", "cosine to the start", turned, float(moved.by_chance.mean()), f"1: not turned. {OTHERS}"
        ),
        GeometryMeasure("drift_l2", "distance from the start", float(moved.l2.mean()), far, OTHERS),
        GeometryMeasure("still", "rows that never moved", still, 0.0, unreached),
        GeometryMeasure("pip", "PIP loss", pip, luck, as_far),
    ]
