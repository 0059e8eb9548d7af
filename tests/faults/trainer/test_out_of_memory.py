"""G5, G6: running out of memory anywhere costs no step, and changes the weights by rounding at most."""

import pytest

from tests.faults.apart import run_apart


@pytest.mark.sweep  # `make test` does so at each place of a step, in its own process: train/test_step.py
def test_memory_that_runs_out_twice_in_a_step_costs_nothing_but_a_smaller_plan():
    figures = run_apart("trainer", "out_of_memory", steps=10, hits=[5], in_a_row=[2], only="step")

    assert figures["runs"] >= 8
    assert (figures["unstartable"], figures["wrong"]) == (0, 0), figures
    assert figures["largest_difference"] <= 1e-6
    assert figures["smaller_plans"] > 0
