"""The whole analysis against plain numpy on matrices that fit, and its baselines on clouds that are chance itself."""

from __future__ import annotations

import numpy as np
import pytest

from wake2vec.contract.errors import InputError
from wake2vec.show.geometry import streams
from wake2vec.show.geometry.analysis import Analysis, Sizes, analyse
from wake2vec.show.geometry.matrix import ROWS_AT_ONCE, InMemory
from wake2vec.show.geometry.plate import draw_plate

RANDOM = np.random.default_rng(3)
BASE = (RANDOM.standard_normal((300, 16)) + 0.5).astype(np.float32)
START = RANDOM.standard_normal((90, 16)).astype(np.float32)
NEW = START + 0.3 * RANDOM.standard_normal((90, 16)).astype(np.float32)
NEW[5] = START[5]


def values(found: Analysis) -> dict[str, tuple[float, float]]:
    return {measure.key: (measure.value, measure.chance) for measure in found.measures}


@pytest.fixture(scope="module")
def found() -> Analysis:
    return analyse(InMemory(NEW), InMemory(BASE), InMemory(START))


def test_streamed_figures_are_those_of_the_whole_matrix(found: Analysis) -> None:
    spectrum = np.linalg.eigvalsh(np.cov(NEW.astype(np.float64).T, bias=True))[::-1]

    assert found.norms_new == pytest.approx(np.linalg.norm(NEW, axis=1), rel=1e-6)
    assert found.norms_base == pytest.approx(np.linalg.norm(BASE, axis=1), rel=1e-6)
    assert found.eigenvalues_new == pytest.approx(spectrum, rel=1e-6)


def test_neighbours_are_those_of_a_full_search(found: Analysis) -> None:
    a = NEW / np.linalg.norm(NEW, axis=1)[:, None]
    b = BASE / np.linalg.norm(BASE, axis=1)[:, None]
    every = a.astype(np.float64) @ b.T

    for row, near in found.neighbours.items():
        assert [id for id, _ in near] == np.argsort(-every[row])[:5].tolist()
        assert [cosine for _, cosine in near] == pytest.approx(np.sort(every[row])[::-1][:5], abs=1e-6)
    assert len(found.neighbours) == 20


def test_the_nearest_are_found_across_the_pieces_of_a_long_matrix() -> None:
    long = RANDOM.standard_normal((2 * ROWS_AT_ONCE + 100, 8))
    asked = long[[0, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 99]]

    ids, cosines = streams.nearest(InMemory(long), asked, 3)

    directions = long / np.linalg.norm(long, axis=1)[:, None]
    every = (asked / np.linalg.norm(asked, axis=1)[:, None]) @ directions.T
    assert ids.tolist() == np.argsort(-every, axis=1)[:, :3].tolist()
    assert cosines == pytest.approx(-np.sort(-every, axis=1)[:, :3], abs=1e-6)


@pytest.mark.parametrize(("new", "base"), [(1, 10), (0, 10), (5, 3)])
def test_too_few_rows_to_measure_are_told(new: int, base: int) -> None:
    with pytest.raises(InputError, match="too few"):
        analyse(InMemory(NEW[:new]), InMemory(BASE[:base]))


def test_drift_names_the_rows_that_moved_most_and_least(found: Analysis) -> None:
    assert found.drift is not None
    cosine = (NEW * START).sum(1) / np.linalg.norm(NEW, axis=1) / np.linalg.norm(START, axis=1)

    assert found.drift.cosine == pytest.approx(cosine, abs=1e-6)
    assert found.drift.l2 == pytest.approx(np.linalg.norm(NEW - START, axis=1), abs=1e-6)
    assert found.drift.least(1)[0].row == 5
    assert found.drift.most(1)[0].row == int(cosine.argmin())
    assert values(found)["still"][0] == pytest.approx(1 / 90)


def test_a_cloud_that_is_chance_measures_as_chance() -> None:
    cloud = RANDOM.standard_normal((1200, 64)).astype(np.float32)

    figures = values(analyse(InMemory(cloud[:500]), InMemory(cloud[500:])))

    for key in (
        "isotropy_rows_new",
        "isotropy_axes_new",
        "dimension",
        "axes_0.90",
        "axes_0.95",
        "nearest",
        "pairs_std",
    ):
        value, chance = figures[key]
        assert value == pytest.approx(chance, rel=0.05), key
    assert abs(figures["cohens_d"][0]) < 0.25
    assert figures["pairs_ks"][0] < 0.02


def test_drift_of_other_words_rows_is_its_own_baseline() -> None:
    figures = values(analyse(InMemory(np.roll(START, 1, axis=0)), InMemory(BASE), InMemory(START)))

    assert figures["drift_cosine"][0] == pytest.approx(figures["drift_cosine"][1], abs=0.1)
    assert figures["drift_l2"][0] == pytest.approx(figures["drift_l2"][1], rel=0.1)


def test_the_same_rows_give_the_same_figures(found: Analysis) -> None:
    again = analyse(InMemory(NEW), InMemory(BASE), InMemory(START))

    assert again.measures == found.measures
    assert draw_plate("t", again) == draw_plate("t", found)


@pytest.mark.parametrize("start", [None, NEW[:2]])
def test_two_rows_are_enough(start: np.ndarray | None) -> None:
    found = analyse(
        InMemory(NEW[:2]), InMemory(BASE[:4]), InMemory(start) if start is not None else None, sizes=Sizes(pairs=2)
    )

    assert draw_plate("$two _rows", found).startswith(b"\x89PNG")
