"""Golden values of a job file, and two ledgers side by side."""

from __future__ import annotations

import pytest

from wake2vec.contract.expectation import first_difference, mismatches, parse_expectation

STEP = {"kind": "step", "step": 20, "loss": 5.5, "seconds": 1.0, "attempt": 1, "structure": {"input": {"share": 0.25}}}
EVALUATION = {"kind": "evaluation", "step": 20, "loss": 5.1486, "checkpoint": "checkpoint-20"}


@pytest.mark.parametrize("line", ["val 5.1 at 20 within 1", "val = x at 20 within 1", "val = 5.1 at 20", ""])
def test_a_line_of_another_form_is_told_the_form(line):
    with pytest.raises(ValueError, match="VALUE = NUMBER at STEP within NUMBER"):
        parse_expectation(line)


def test_a_value_is_compared_where_it_stands_and_nowhere_else():
    lines = ["val = 5.1 at 20 within 0.01", "loss = 5.5 at 20 within 1", "structure.input.share = 0.5 at 20 within 0.1"]

    assert list(mismatches(EVALUATION, lines)) == ["val is 5.1486, expected 5.1 within 0.01"]
    assert list(mismatches(STEP, lines)) == ["structure.input.share is 0.25, expected 0.5 within 0.1"]
    assert list(mismatches({**EVALUATION, "step": 40}, lines)) == []


def test_a_value_that_is_no_number_is_a_mismatch():
    assert list(mismatches({**STEP, "loss": float("nan")}, ["loss = 5 at 20 within 1"])) != []


def test_runs_that_computed_the_same_are_the_same_whenever_and_wherever_they_ran():
    other = {**STEP, "seconds": 9.0, "attempt": 4}

    assert first_difference([STEP, EVALUATION], [other, EVALUATION, {**STEP, "step": 21}]) == (None, 2)


def test_the_first_difference_is_named_by_step_and_value():
    later = {**STEP, "step": 30}
    other = [STEP, {**later, "structure": {"input": {"share": 0.26}}}]
    found, compared = first_difference([later, STEP], other)

    assert compared == 2
    assert found is not None
    assert (found.step, found.kind, found.value, found.here) == (30, "step", "structure.input.share", 0.25)
    assert found.share == pytest.approx(0.01 / 0.26)
    assert first_difference([later, STEP], other, within=0.05) == (None, 2)


def test_a_step_that_was_trained_again_counts_as_it_was_at_last():
    assert first_difference([{**STEP, "loss": 1.0}, STEP], [STEP])[0] is None
