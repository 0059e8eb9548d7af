"""The transition table and the decision after an attempt."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import IllegalTransition
from runner.states import (
    ASKED,
    FINAL,
    TRANSITIONS,
    Change,
    Ending,
    Outcome,
    RetryBudget,
    State,
    Where,
    Wish,
    backoff_seconds,
    is_due,
    judge,
    next_state,
    plan_segments,
    same_failure,
)

BUDGET = RetryBudget(attempts=10, first_seconds=60.0, last_seconds=1800.0)


@given(st.sampled_from(State), st.sampled_from(Change))
def test_a_change_leads_where_the_table_says_or_is_refused(state, change):
    if (state, change) in TRANSITIONS:
        assert next_state(state, change) is TRANSITIONS[state, change]
    else:
        with pytest.raises(IllegalTransition, match=f"a {state} job (cannot be asked to {change}|does not go on)"):
            next_state(state, change)


def test_every_state_is_reachable_and_an_end_is_reachable_from_each():
    after = {state: {target for (origin, _), target in TRANSITIONS.items() if origin is state} for state in State}

    def reach(start):
        seen, todo = set(), [start]
        while todo:
            state = todo.pop()
            if state not in seen:
                seen.add(state)
                todo += after[state]
        return seen

    assert reach(State.QUEUED) == set(State)
    assert all(reach(state) & FINAL for state in State)


def test_only_a_person_leaves_a_final_state():
    assert {change for (state, change) in TRANSITIONS if state in FINAL} <= ASKED


@given(st.integers(1, 5000), st.integers(1, 700))
def test_segments_follow_each_other_and_cover_every_step_once(steps, every):
    planned = plan_segments(steps, every)

    assert [step for first, last in planned for step in range(first, last)] == list(range(steps))
    assert all(last - first == every for first, last in planned[:-1])


endings = st.builds(
    Ending,
    outcome=st.sampled_from(Outcome),
    where=st.sampled_from(["setup", "training", "evaluation", "capacity"]),
    cause=st.text(max_size=5),
    remedy=st.sampled_from(["", "mend it"]),
    asked_to_stop=st.booleans(),
    kept_new_step=st.booleans(),
    same_session=st.booleans(),
    wish=st.sampled_from([None, *Wish]),
    stalls=st.integers(0, 12),
    rolled_back=st.booleans(),
)


@given(endings)
def test_every_verdict_is_a_change_that_a_running_job_can_make(ending):
    verdict = judge(ending, BUDGET)

    assert verdict.change is None or (State.RUNNING, verdict.change) in TRANSITIONS
    assert 0 <= verdict.wait_seconds <= BUDGET.last_seconds
    if verdict.change is Change.FAIL:
        assert verdict.reason


@given(endings)
def test_a_vanished_machine_never_counts(ending):
    lost = Ending(outcome=Outcome.LOST, same_session=False, stalls=min(ending.stalls, BUDGET.attempts - 1))

    verdict = judge(lost, BUDGET)

    assert verdict.change is Change.REQUEUE
    assert verdict.stalls == lost.stalls


def test_a_crash_loop_in_one_session_ends():
    stalls, waits = 0, []
    for _ in range(BUDGET.attempts):
        verdict = judge(Ending(outcome=Outcome.LOST, stalls=stalls), BUDGET)
        stalls = verdict.stalls
        waits.append(verdict.wait_seconds)

    assert verdict.change is Change.FAIL
    assert waits[:4] == [0, 60, 120, 240]
    assert max(waits) <= 1800


def test_progress_renews_the_budget():
    verdict = judge(Ending(outcome=Outcome.FAILED, where="training", stalls=9, kept_new_step=True), BUDGET)

    assert verdict.change is Change.REQUEUE
    assert verdict.stalls == 0


def test_a_setup_fault_with_a_remedy_fails_at_once_and_one_without_is_tried_again():
    permanent = Ending(outcome=Outcome.FAILED, where="setup", cause="corpus is empty", remedy="give a text")
    passing = Ending(outcome=Outcome.FAILED, where="setup", cause="connection reset")

    assert judge(permanent, BUDGET).change is Change.FAIL
    assert judge(permanent, BUDGET).remedy == "give a text"
    assert judge(passing, BUDGET).change is Change.REQUEUE


ALIKE = Ending(outcome=Outcome.FAILED, where="training", cause="KeyError: 'x'", remedy="mend it", stalls=1, again=True)


def test_the_same_failure_twice_at_the_same_step_ends_the_job_at_once():
    verdict = judge(ALIKE, BUDGET)

    assert verdict.change is Change.FAIL
    assert "KeyError: 'x'" in verdict.reason
    assert verdict.remedy == "mend it"


@pytest.mark.parametrize(
    "change",
    [
        {"again": False}, {"stalls": 0}, {"kept_new_step": True}, {"asked_to_stop": True}, {"outcome": Outcome.LOST},
        {"outcome": Outcome.OOM}, {"where": Where.NETWORK}, {"where": Where.CARD}, {"where": Where.DISK},
    ],
)  # fmt: skip
def test_what_may_pass_or_is_not_the_same_is_tried_again(change):
    assert judge(replace(ALIKE, **change), BUDGET).change is Change.REQUEUE


def test_failures_are_the_same_but_for_the_numbers_in_them():
    first = (Outcome.FAILED, "training", "CUDA error at 0x7f3a in block 12", 40)

    assert same_failure(first, (Outcome.FAILED, "training", "CUDA error at 0x9bc1 in block 3", 40))
    assert not same_failure(first, (Outcome.FAILED, "training", "CUDA error at 0x9bc1 in block 3", 41))
    assert not same_failure(first, (Outcome.FAILED, "training", "no such file", 40))
    assert not same_failure((None, "", "", None), (Outcome.FAILED, "", "", 0))


def test_divergence_goes_back_once_and_then_fails():
    first = judge(Ending(outcome=Outcome.DIVERGED, where="training", cause="loss is nan"), BUDGET)
    second = judge(Ending(outcome=Outcome.DIVERGED, where="training", cause="loss is nan", rolled_back=True), BUDGET)

    assert first.change is Change.REQUEUE
    assert first.roll_back
    assert second.change is Change.FAIL


def test_a_completed_attempt_is_not_the_end_of_the_job():
    assert judge(Ending(outcome=Outcome.COMPLETED), BUDGET).change is None
    assert judge(Ending(outcome=Outcome.COMPLETED, wish=Wish.HOLD), BUDGET).change is None


def test_a_stop_that_was_asked_for_never_counts():
    assert judge(Ending(outcome=Outcome.YIELDED, asked_to_stop=True, stalls=9), BUDGET).change is Change.REQUEUE


@given(st.integers(0, 10_000))
def test_backoff_grows_and_stays_within_its_limit(stalls):
    wait = backoff_seconds(stalls, 60, 1800)

    assert wait <= backoff_seconds(stalls + 1, 60, 1800) <= 1800


def test_a_clock_that_was_set_back_does_not_freeze_a_job():
    assert not is_due(1000.0, 999.0, 1800)
    assert is_due(1000.0, 1000.0, 1800)
    assert is_due(1000.0 + 86_400, 1000.0, 1800)


def test_a_hub_that_is_away_never_counts_against_a_job_but_is_waited_for():
    ending = Ending(outcome=Outcome.FAILED, where="network", cause="away", remedy="look", stalls=9)
    verdict = judge(ending, RetryBudget(attempts=10, first_seconds=60, last_seconds=1800))

    assert (verdict.change, verdict.stalls) == (Change.REQUEUE, 9)
    assert verdict.wait_seconds == 240


def test_a_frozen_text_that_cannot_be_used_has_failed_for_good():
    ending = Ending(outcome=Outcome.FAILED, where="inputs", cause="words.txt: every word is known")
    verdict = judge(ending, RetryBudget(attempts=10, first_seconds=60, last_seconds=1800))

    assert (verdict.change, verdict.reason) == (Change.FAIL, "cannot start: words.txt: every word is known")


def test_training_that_trains_nothing_has_failed_for_good():
    ending = Ending(outcome=Outcome.FAILED, where="nothing", cause="the gradient was exactly 0")
    verdict = judge(ending, RetryBudget(attempts=10, first_seconds=60, last_seconds=1800))

    assert verdict.change is Change.FAIL
    assert verdict.reason == "trains nothing: the gradient was exactly 0"
