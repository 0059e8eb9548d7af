"""What a person says of a job in one home holds in every home that knows the job, in the order of its log."""

from __future__ import annotations

import pytest

from runner.queue import jobs
from runner.states import State, Wish
from runner.store.records import StateNote
from runner.sync.standing import untold
from tests.simulated import Clock, Home
from tests.unit.runner.conftest import job_spec

MINUTE = 70.0  # an idle job is looked at once a minute


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def homes(tmp_path, clock):
    """Two, which both have job `a` queued; the first has trained 10 of its 60 steps and rests."""
    one = Home.new(tmp_path / "one", tmp_path / "store", clock)
    one.add(job_spec("a", steps=60, checkpoint={"every_steps": 10}))
    one.until(lambda: one.trainers.living)
    one.train(10)
    one.rounds(2)
    other = Home.new(tmp_path / "other", tmp_path / "store", clock)
    yield one, other
    one.queue.close()
    other.queue.close()


def wish(home, wish):
    """As the command does, carried out and told to the log."""
    jobs.set_wish(home.queue, "a", wish, home.clock.now)
    for _ in range(4):
        home.rounds(1)
        home.obey()


def test_a_job_that_one_home_cancelled_is_not_trained_by_another(homes):
    one, other = homes
    wish(one, Wish.CANCEL)

    other.rounds(10)

    assert not other.trainers.living
    assert other.state() == "cancelled"


def test_it_stays_cancelled_after_the_other_home_has_begun_anew(homes):
    one, other = homes
    wish(one, Wish.CANCEL)
    other.rounds(10)

    other.kill_daemon()
    other.rounds(10)

    assert other.state() == "cancelled"


def test_a_home_that_was_off_meanwhile_hears_of_it_when_it_begins(homes):
    one, other = homes
    other.queue.close()
    wish(one, Wish.CANCEL)

    other.start_daemon()
    other.rounds(10)

    assert not other.trainers.living
    assert other.state() == "cancelled"


def test_nobody_leaves_before_the_log_says_what_is_cancelled_or_held(homes):
    one, _ = homes
    one.end_trainer("yielded")
    one.tick()
    one.trainers.living.clear()
    jobs.set_wish(one.queue, "a", Wish.CANCEL, one.clock.now)
    one.kill_daemon()
    assert untold(one.context) == ["a"]

    one.until(lambda: not untold(one.context))

    assert one.context.opened["a"].noted(StateNote).state == "cancelled"


def test_a_job_that_rests_as_its_log_says_costs_no_record_at_the_next_start(homes):
    one, _ = homes
    wish(one, Wish.CANCEL)
    one.rounds(3)
    before = len(one.context.opened["a"].records)

    one.kill_daemon()
    one.until(lambda: not untold(one.context))
    one.rounds(3)

    assert len(one.context.opened["a"].records) == before


def test_a_home_killed_before_it_noted_what_it_heard_hears_the_next_word_too(homes, monkeypatch):
    one, other = homes
    with monkeypatch.context() as patch:
        patch.setattr(other.context.known, "keep", lambda log: None)
        wish(one, Wish.CANCEL)
        other.rounds(10)
    other.kill_daemon()
    other.rounds(3)
    assert other.state() == "cancelled"

    jobs.retry(one.queue, "a", one.clock.now)
    one.until(lambda: one.trainers.living)
    other.rounds(2, seconds=MINUTE)

    assert other.state() == "queued"


def test_a_hold_is_heard_and_so_is_its_release(homes):
    one, other = homes
    wish(one, Wish.HOLD)
    other.rounds(10)
    assert other.state() == "held"

    jobs.release(one.queue, "a", one.clock.now)
    one.until(lambda: one.trainers.living)
    other.rounds(2, seconds=MINUTE)

    assert other.state() == "queued"


def test_what_is_said_here_afterwards_counts_here_and_there(homes):
    one, other = homes
    wish(one, Wish.CANCEL)
    other.rounds(10)

    jobs.retry(other.queue, "a", other.clock.now)
    other.until(lambda: other.trainers.living)
    one.rounds(3, seconds=MINUTE)

    assert one.state() == "queued", "and not cancelled once more"
    assert other.state() == "running"


def test_a_home_that_begins_anew_does_not_say_again_what_another_has_taken_back(homes):
    one, other = homes
    wish(one, Wish.CANCEL)
    other.rounds(10)
    jobs.retry(other.queue, "a", other.clock.now)
    other.until(lambda: other.trainers.living)

    one.kill_daemon()
    one.rounds(5)
    other.rounds(5, seconds=MINUTE)

    assert other.state() == "running"
    assert one.state() == "queued"


def test_what_a_home_holds_for_reasons_of_its_own_another_may_take(homes):
    one, other = homes
    jobs.set_wish(one.queue, "a", Wish.HOLD, one.clock.now)
    one.tick()
    one.obey()
    one.tick()
    jobs.update_job(one.queue, "a", remedy="give it a larger card")
    one.rounds(3)

    other.until(lambda: other.trainers.living)

    assert one.job().state is State.HELD
