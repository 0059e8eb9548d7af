"""A job that is done gets more steps: its log opens again, in this home, in a new one, and in one that knew its end."""

from __future__ import annotations

import json

import pytest

from runner.commands.change import extend as extend_command
from runner.errors import IllegalTransition, StoreBusy
from runner.queue import checkpoints, jobs, ledger
from runner.queue.changing import extend
from runner.queue.waiting import claimable
from runner.store.records import commits, ends, is_done
from runner.store.root import jobs as entries_of
from runner.store.root import open_job
from runner.sync.fetch import fetch_result
from runner.sync.loop import release_all
from runner.sync.mend import repair
from runner.sync.trust import unconfirmed
from tests.simulated import Clock, Home
from tests.unit.runner.conftest import job_spec


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def home(tmp_path, clock, store):
    """Job `a` of 30 steps has succeeded here."""
    home = Home.new(tmp_path / "home", store, clock)
    home.add(job_spec("a", steps=30, checkpoint={"every_steps": 10}))
    to_the_end(home)
    yield home
    home.queue.close()


def to_the_end(home, name="a"):
    for _ in range(60):
        if home.trainers.living:
            home.train(10)
        home.rounds(1)
        if home.state(name) == "succeeded":
            return
    raise AssertionError(f"{home.state(name)}: {home.problem(name)}")


def log_of(home):
    root = home.context.root_log()
    root.refresh()
    return open_job(root, entries_of(root.records)["a"]).records


def more(home, steps):
    """As the command does it."""
    extend_command(home.daemon.settings, "a", steps, as_json=True)


def weights(home):
    return json.loads((home.run().final / "weights.json").read_text())["step"]


def test_a_job_that_is_done_goes_on_and_ends_with_a_result_of_all_its_steps(home):
    more(home, 50)
    assert home.state() == "queued"
    to_the_end(home)

    assert weights(home) == 50
    assert home.durable() == 50
    assert [one.done.step for one in ends(log_of(home))] == [30, 50]
    assert unconfirmed(home.context, home.now) == {}
    spec = home.job().spec
    assert spec.train is not None
    assert [(one.from_step, one.steps) for one in spec.train.extended] == [(30, 50)]


def test_it_goes_on_from_its_last_checkpoint(home):
    more(home, 50)
    home.until(lambda: home.trainers.living)

    assert home.trainer.step == 30


def test_a_kill_at_any_moment_of_the_opening_loses_nothing(home):
    more(home, 50)
    for _ in range(8):
        home.rounds(1)
        home.trainers.living.clear()
        home.kill_daemon()
    to_the_end(home)

    assert [one.done.step for one in ends(log_of(home))] == [30, 50]


def test_a_lost_answer_to_the_opening_opens_it_once(home, monkeypatch):
    more(home, 50)
    create, lost = type(home.store).create, []

    def fail_once(store, id, body, *, name):
        answer = create(store, id, body, name=name)
        if b'"what": "extend"' in body and not lost:
            lost.append(id)
            raise StoreBusy("the answer was lost")
        return answer

    monkeypatch.setattr(type(home.store), "create", fail_once)
    for _ in range(5):
        home.rounds(1, seconds=200.0)
    to_the_end(home)

    opened = [one for one in log_of(home) if one.payload.get("what") == "extend"]
    assert lost
    assert len(opened) == 1


def test_a_new_machine_takes_an_extended_job_over(home):
    more(home, 50)
    home.until(lambda: home.trainers.living)
    home.train(10)
    home.rounds(3)
    home.lose()

    assert home.state() == "queued"
    assert home.job().steps == 50
    to_the_end(home)
    assert weights(home) == 50


def test_a_new_machine_knows_a_job_that_was_extended_and_is_done(home):
    more(home, 50)
    to_the_end(home)
    home.lose()

    job = home.job()
    assert (str(job.state), job.steps) == ("succeeded", 50)
    fetch_result(home.context, job, "final", home.now)
    assert weights(home) == 50


def test_a_new_machine_extends_what_another_has_finished(home):
    home.lose()
    more(home, 50)
    to_the_end(home)

    assert weights(home) == 50


def test_the_home_that_knew_the_old_end_hears_of_the_new_one(home, tmp_path, store, clock):
    other = Home.new(tmp_path / "other", store, clock)
    more(other, 50)
    other.until(lambda: other.trainers.living)
    other.train(10)
    other.rounds(2)
    clock.monotonic += 100.0
    home.until(lambda: home.state() == "queued")
    assert home.daemon.lost == {}
    assert home.job().steps == 50
    to_the_end(other)
    home.until(lambda: home.state() == "succeeded", rounds=200)

    assert home.job().steps == 50
    assert not home.run().final.exists()
    fetch_result(home.context, home.job(), "final", home.now)
    assert weights(home) == 50
    other.queue.close()


def test_two_homes_that_extend_it_at_once_end_with_the_larger_number(home, tmp_path, store, clock):
    other = Home.new(tmp_path / "other", store, clock)
    more(home, 40)
    more(other, 60)
    to_the_end(home)
    release_all(home.context, home.now)
    to_the_end(other)

    found = [one.done.step for one in ends(log_of(other))]
    assert found[0] == 30
    assert found[-1] == 60
    assert [one.commit.step for one in commits(log_of(other))] == sorted(
        one.commit.step for one in commits(log_of(other))
    )
    other.queue.close()


def test_settings_that_another_home_has_changed_are_followed_once(home, tmp_path, store, clock):
    more(home, 90)
    home.until(lambda: home.trainers.living)
    home.train(10)
    home.rounds(2)
    other = Home.new(tmp_path / "other", store, clock)
    home.trainers.living.clear()
    home.queue.close()
    other.daemon.take_over = True
    extend(other.queue, "a", 120, clock.now, from_step=40)
    to_the_end(other)
    home.start_daemon()
    home.until(lambda: home.job().steps == 120, rounds=300)

    told = [one.change["steps"] for one in ledger.list_regimes(home.queue, "a")]
    assert told == [90, 120]
    other.queue.close()


def test_what_a_result_stood_on_stays_in_the_store(home):
    more(home, 90)
    to_the_end(home)

    steps = [one.step for one in checkpoints.list_checkpoints(home.queue, "a") if one.durable_at is not None]
    assert 30 in steps


def test_repair_writes_both_ends_anew(home, store):
    more(home, 50)
    to_the_end(home)
    record = sorted((store / "jobs/a/log").iterdir())[2]
    record.unlink()
    repair(home.context, home.now, lambda text: None, agreed=True)

    records = log_of(home)
    assert is_done(records)
    assert [one.done.step for one in ends(records)][-1] == 50
    assert unconfirmed(home.context, home.now) == {}


def test_a_job_that_ended_by_its_own_rule_is_not_extended(home):
    jobs.end_at(home.queue, "a", 20)

    with pytest.raises(IllegalTransition, match="ended by its own rule at step 20 of 30"):
        more(home, 50)

    assert home.state() == "succeeded"


def test_a_p2_that_has_begun_does_not_wait_for_more_steps_of_its_source(home):
    home.add(job_spec("b", phase="p2", after="a", steps=30))
    home.add(job_spec("c", phase="p2", after="a", steps=30))
    jobs.update_job(home.queue, "b", kept_step=10)
    more(home, 50)

    assert [job.name for job in claimable(jobs.list_jobs(home.queue))] == ["a", "b"]
