"""What keeps a job from going on, of what kind it is, and how a run ends that waits for nothing but that."""

import pytest

from runner.errors import (
    Damaged,
    JobExists,
    LeaseHeld,
    NeedsHelp,
    NeedsYou,
    SignInNeeded,
    StoreBusy,
    StoreFull,
    StoreUnavailable,
    Unsent,
)
from runner.states import State
from runner.trouble import Cause, Trouble, cause_of, command_of, conclude, still_moving, told
from tests.unit.runner.moments import job


def trouble(name="a", cause=Cause.STORE, **more):
    fields = {"said": f"{name}: no", "since_at": 1.0, "times": 2}
    return Trouble(job=name, cause=cause, **(fields | more))


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (LeaseHeld("held", holder="x", seconds_left=9.0), Cause.RIVAL),
        (SignInNeeded("who"), Cause.SIGN_IN),
        (StoreFull("full"), Cause.FULL),
        (StoreBusy("busy"), Cause.STORE),
        (StoreUnavailable("away"), Cause.STORE),
        (OSError(28, "No space left on device"), Cause.DISK),
        (JobExists("taken"), Cause.PERSON),
        (NeedsHelp("decide"), Cause.PERSON),
        (Damaged("bits"), Cause.PERSON),
    ],
)
def test_every_error_of_a_round_is_of_a_kind(error, cause):
    assert cause_of(error) is cause


def test_what_only_a_person_can_mend_always_has_a_command():
    assert command_of(NeedsHelp("x", command="wake2vec-runner login"), Cause.PERSON, "a") == "wake2vec-runner login"
    assert command_of(NeedsHelp("x"), Cause.PERSON, "a") == "wake2vec-runner cancel a"
    assert command_of(StoreBusy("x"), Cause.STORE, "a") == ""


def test_the_store_is_one_trouble_for_all_jobs_and_a_rival_is_one_for_each():
    assert trouble("a").key == trouble("b", said="other words").key
    assert trouble("a", Cause.RIVAL).key != trouble("b", Cause.RIVAL).key


def moving(jobs, troubles, working=()):
    by_name = {one.job: one for one in troubles}
    return [one.name for one in still_moving(jobs, set(working), by_name.get)]


def test_a_job_behind_one_that_needs_a_person_does_not_move_either():
    chain = [job("a"), job("b", number=2, after="a"), job("c", number=3, after="b"), job("d", number=4)]

    assert moving(chain, [trouble("a", Cause.PERSON)]) == ["d"]


@pytest.mark.parametrize("cause", [Cause.RIVAL, Cause.DISK, Cause.BACKOFF, Cause.MACHINE])
def test_what_passes_by_itself_is_waited_for(cause):
    assert moving([job("a")], [trouble("a", cause)]) == ["a"]


def test_a_job_that_trains_moves_whatever_the_store_does():
    assert moving([job("a", state=State.RUNNING)], [trouble("a", Cause.FULL)], working=["a"]) == ["a"]


def test_one_failure_does_not_make_sure_that_a_person_is_needed():
    assert moving([job("a")], [trouble("a", Cause.PERSON, times=1)]) == ["a"]


def test_a_run_with_only_persons_to_wait_for_ends_at_once_with_their_commands():
    end = conclude([trouble("a", Cause.PERSON, command="wake2vec-runner cancel a")], [], 0.0, 600.0)

    assert isinstance(end, NeedsYou)
    assert (end.exit_code, str(end).splitlines()[1]) == (22, "a: no; wake2vec-runner cancel a")


@pytest.mark.parametrize("cause", [Cause.STORE, Cause.FULL, Cause.SIGN_IN])
def test_the_store_is_waited_for_as_long_as_the_person_says(cause):
    assert conclude([trouble("a", cause)], ["a"], 599.0, 600.0) is None
    end = conclude([trouble("a", cause), trouble("b", cause, said="a: no")], ["a"], 601.0, 600.0)

    assert isinstance(end, Unsent)
    assert end.exit_code == 23
    assert str(end).splitlines()[0] == "on this machine only, not in the store after 10 min of waiting: a"
    assert str(end).count("a: no") == 1  # once, for however many jobs


def test_a_store_that_never_came_is_told_also_when_nothing_is_to_be_sent():
    assert str(conclude([trouble()], [], 61.0, 60.0)).startswith("the store was not to be had for 61 s\n")


def test_a_command_that_the_cause_names_is_not_said_twice():
    assert told(trouble(said="x; `wake2vec-runner login`", command="wake2vec-runner login")).count("login") == 1
