from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wake2vec.train.cadence import Cadence, is_milestone, must_stop, rolling_interval_seconds, rolling_is_due

CADENCE = Cadence(every_steps=200, max_loss_seconds=300.0, mean_session_seconds=6000.0)


def test_the_rolling_interval_is_youngs_between_its_bounds() -> None:
    assert rolling_interval_seconds(CADENCE, cost_seconds=3.0) == pytest.approx(math.sqrt(2 * 3.0 * 6000.0))


@given(st.floats(0, 1e4), st.floats(1, 7200), st.floats(1, 1e6))
def test_work_at_risk_never_passes_what_the_job_allows(cost: float, max_loss: float, session: float) -> None:
    cadence = Cadence(every_steps=200, max_loss_seconds=max_loss, mean_session_seconds=session)
    assert min(60.0, max_loss) <= rolling_interval_seconds(cadence, cost) <= max_loss


def test_a_rolling_checkpoint_is_due_once_the_interval_has_passed() -> None:
    assert not rolling_is_due(189.0, 3.0, CADENCE)
    assert rolling_is_due(190.0, 3.0, CADENCE)


@pytest.mark.parametrize(("step", "expected"), [(0, False), (199, False), (200, True), (400, True), (437, True)])
def test_milestones_are_every_two_hundred_steps_and_the_last(step: int, expected: bool) -> None:
    assert is_milestone(step, CADENCE, last_step=437) is expected


def test_no_step_is_begun_that_a_known_deadline_would_cut() -> None:
    assert must_stop(seconds_left=14.9, step_seconds=8.0, save_seconds=2.0)
    assert not must_stop(seconds_left=15.1, step_seconds=8.0, save_seconds=2.0)
    assert not must_stop(seconds_left=None, step_seconds=8.0, save_seconds=2.0)
