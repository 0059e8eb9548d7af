"""Each measure against the sum that defines it, written out, and each baseline against many draws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wake2vec.show.geometry import measures

RANDOM = np.random.default_rng(7)
ROWS = RANDOM.standard_normal((40, 6)) * np.array([5.0, 2, 1, 1, 0.5, 0.1]) + 1


def test_welch_t_and_cohens_d_are_their_textbook_sums() -> None:
    a, b = np.array([3.0, 5, 7, 9]), np.array([1.0, 2, 3])

    # means 6 and 2; variances 20/3 and 1
    assert measures.welch_t(a, b) == pytest.approx(4 / math.sqrt(20 / 3 / 4 + 1 / 3))
    assert measures.cohens_d(a, b) == pytest.approx(4 / math.sqrt((20 / 3 + 1) / 2))


def test_isotropy_over_rows_is_the_original_sum() -> None:
    centred = ROWS - ROWS.mean(0)
    near = [row / np.linalg.norm(row) for row in centred]
    z = [sum(math.exp(near[i] @ near[j]) if i != j else 1.0 for j in range(40)) for i in range(40)]

    assert measures.isotropy_of_rows(ROWS) == pytest.approx(min(z) / max(z))


@pytest.mark.parametrize("count", [40, 5])
def test_isotropy_over_axes_is_the_partition_function(count: int) -> None:
    rows = ROWS[:count]
    near = rows - rows.mean(0)
    near = near / np.linalg.norm(near, axis=1)[:, None]
    _, strength, axes = np.linalg.svd(near, full_matrices=False)
    held = axes[strength > 1e-6]
    z = [sum(math.exp(sign * float(axis @ row)) for row in near) for axis in held for sign in (1, -1)]

    assert measures.isotropy_of_axes(rows) == pytest.approx(min(z) / max(z))


def test_a_random_cloud_is_near_one_so_that_the_figure_needs_its_baseline() -> None:
    cloud = RANDOM.standard_normal((2000, 512))

    assert measures.isotropy_of_rows(cloud) > 0.99


def test_effective_dimension() -> None:
    assert measures.participation_ratio(np.ones(7)) == pytest.approx(7)
    assert measures.participation_ratio(np.array([1.0, 0, 0])) == pytest.approx(1)
    assert measures.dimensions_for(np.array([6.0, 3, 1]), 0.9) == 2
    assert measures.dimensions_for(np.array([6.0, 3, 1]), 0.95) == 3
    assert measures.dimensions_for(np.ones(100), 0.9) == 90


@pytest.mark.parametrize(("n", "d"), [(2000, 100), (300, 100), (100, 100), (60, 200)])
def test_random_eigenvalues_are_those_of_drawn_clouds(n: int, d: int) -> None:
    draws = [np.linalg.eigvalsh(np.cov(RANDOM.standard_normal((n, d)).T))[::-1] for _ in range(20)]

    found = measures.random_eigenvalues(n, d)

    expected = np.mean(draws, axis=0)
    assert found.sum() == pytest.approx(expected.sum(), rel=0.02)
    assert measures.participation_ratio(found) == pytest.approx(measures.participation_ratio(expected), rel=0.03)
    for share in (0.5, 0.9, 0.95):
        assert measures.dimensions_for(found, share) == pytest.approx(measures.dimensions_for(expected, share), abs=1.5)


def test_pairwise_cosines_are_all_pairs_once() -> None:
    rows = ROWS[:5]
    expected = [
        rows[i] @ rows[j] / np.linalg.norm(rows[i]) / np.linalg.norm(rows[j]) for i in range(5) for j in range(i + 1, 5)
    ]

    assert measures.pairwise_cosines(rows) == pytest.approx(np.array(expected))


def test_kolmogorov_smirnov_is_the_widest_gap() -> None:
    a, b = RANDOM.standard_normal(50), RANDOM.standard_normal(70) + 0.5
    gaps = [abs((a <= x).mean() - (b <= x).mean()) for x in np.concatenate([a, b])]

    assert measures.kolmogorov_smirnov(a, b) == pytest.approx(max(gaps))
    assert measures.kolmogorov_smirnov(a, a) == 0
    assert measures.kolmogorov_smirnov(a, a + 100) == 1


def test_cosines_of_rows_with_their_partners() -> None:
    a = np.array([[1.0, 0], [1, 1], [0, 0], [0, 0]], dtype=np.float32)
    b = np.array([[0.0, 2], [2, 2], [0, 0], [1, 0]], dtype=np.float32)

    assert measures.cosines(a, b) == pytest.approx(np.array([0, 1, 1, 0]))


def test_pip_loss_is_blind_to_rotation_and_sees_movement() -> None:
    turn = np.linalg.qr(RANDOM.standard_normal((6, 6)))[0]
    products = ROWS @ ROWS.T
    moved = ROWS + 0.1
    expected = np.linalg.norm(products - moved @ moved.T) / np.linalg.norm(products)

    assert measures.pip_loss(ROWS, ROWS @ turn) == pytest.approx(0, abs=1e-12)
    assert measures.pip_loss(ROWS, moved) == pytest.approx(expected)


def test_a_random_walk_goes_as_far_as_training_did() -> None:
    after = ROWS + RANDOM.standard_normal(ROWS.shape)

    walked = measures.random_walk(ROWS, after, np.random.default_rng(1))

    assert np.linalg.norm(walked - ROWS, axis=1) == pytest.approx(np.linalg.norm(after - ROWS, axis=1))


def test_samples_without_any_spread_give_no_warning() -> None:
    same = np.ones(5)

    assert measures.cohens_d(same, same) == 0
    assert measures.welch_t(same + 1, same) == math.inf
    assert measures.pip_loss(np.zeros((3, 2)), np.zeros((3, 2))) == 0
