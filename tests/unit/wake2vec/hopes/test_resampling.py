"""Intervals and chances: known answers, and the same figures for the same input."""

from __future__ import annotations

import numpy as np
import pytest

from wake2vec.hopes.resampling import (
    apart_interval,
    at_least,
    mean_interval,
    p_of_labels,
    p_of_signs,
    ratio_interval,
)


def test_an_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    values = np.random.default_rng(0).standard_normal(400) + 3

    low, high = mean_interval(values)

    assert low == pytest.approx(values.mean() - 1.96 * values.std() / 20, abs=0.02)
    assert high == pytest.approx(values.mean() + 1.96 * values.std() / 20, abs=0.02)
    assert (low, high) == mean_interval(values)


def test_a_ratio_is_drawn_unit_by_unit_and_empty_draws_are_left_out() -> None:
    low, high = ratio_interval(np.array([0.0, 6.0, 0.0]), np.array([0.0, 3.0, 0.0]))

    assert (low, high) == (2.0, 2.0)
    assert ratio_interval(np.array([1.0]), np.array([1.0])) == (None, None)


def test_two_groups_are_drawn_apart() -> None:
    low, high = apart_interval(np.full(5, 2.0), np.full(4, 0.5))

    assert (low, high) == (1.5, 1.5)
    assert apart_interval(np.ones(1), np.ones(9)) == (None, None)


def test_signs_that_all_agree_are_as_rare_as_a_coin_says() -> None:
    assert p_of_signs(np.ones(5)) == pytest.approx(2 / 2**5, abs=0.02)
    assert p_of_signs(np.array([1.0, -1.0])) == 1.0


def test_labels_that_part_two_groups_are_as_rare_as_the_choices_say() -> None:
    assert p_of_labels(np.zeros(3), np.ones(3)) == pytest.approx(2 / 20, abs=0.03)
    assert p_of_labels(np.array([0.0, 1.0]), np.array([1.0, 0.0])) == 1.0


def test_so_many_right_or_more_by_luck() -> None:
    assert at_least(0, 5, 1 / 3) == pytest.approx(1)
    assert at_least(2, 2, 1 / 3) == pytest.approx(1 / 9)
    assert at_least(9, 10, 0.5) == pytest.approx(11 / 1024)
