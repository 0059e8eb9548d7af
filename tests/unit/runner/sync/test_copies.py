"""When a copy of the queue goes to the store, and what a home that lost everything gets back from it."""

import sqlite3

import pytest

from runner.errors import DatabaseCorrupt
from runner.queue import attempts, jobs, ledger
from runner.queue.changing import set_value
from runner.queue.database import open_queue
from runner.states import Wish
from runner.store.copies import list_generations
from runner.store.records import commits
from runner.sync.copies import AFTER_A_COMMIT_SECONDS, AFTER_AN_EVENT_SECONDS, mirror
from tests.simulated import Clock, Home, open_attempts
from tests.unit.runner.conftest import CORPUS, job_spec


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def home(tmp_path, clock):
    home = Home.new(tmp_path / "home", tmp_path / "store", clock)
    yield home
    home.queue.close()


def spec(name="a"):
    return job_spec(name, steps=100, checkpoint={"every_steps": 10})


def copies(home):
    return [one.number for one in list_generations(home.context.root_log())]


def running(home):
    home.add(spec())
    home.until(lambda: home.trainers.living)
    home.rounds(1, seconds=AFTER_AN_EVENT_SECONDS)


def leave(home):
    mirror(home.context, home.now, leaving=True)


def test_an_empty_queue_is_not_copied(home):
    home.rounds(3, seconds=1000)

    assert copies(home) == []


def test_a_change_is_copied_within_a_minute_and_quiet_training_is_not(home):
    running(home)
    jobs.set_wish(home.queue, home.add(spec("b")).name, Wish.HOLD, home.clock.now)
    home.rounds(1, seconds=1)
    first = copies(home)[-1]
    jobs.set_wish(home.queue, "b", Wish.CANCEL, home.clock.now)
    home.rounds(1, seconds=1)
    assert copies(home)[-1] == first
    home.rounds(1, seconds=AFTER_AN_EVENT_SECONDS)
    assert copies(home)[-1] == first + 1

    home.train(5, save=False)
    home.rounds(2, seconds=AFTER_A_COMMIT_SECONDS)

    assert copies(home)[-1] == first + 1


def test_a_commit_alone_is_copied_after_ten_minutes(home):
    running(home)
    first = copies(home)[-1]
    home.train(10)
    home.rounds(2, seconds=AFTER_AN_EVENT_SECONDS)
    assert copies(home)[-1] == first

    home.rounds(1, seconds=AFTER_A_COMMIT_SECONDS)

    assert copies(home)[-1] == first + 1


def test_a_writer_and_a_copy_do_not_wait_for_each_other(home):
    running(home)
    ledger.add_event(home.queue, 1.0, "x", "something")
    before = copies(home)[-1]
    with home.queue.write() as connection:
        leave(home)
        connection.exec_driver_sql("SELECT 1")

    assert copies(home)[-1] == before + 1


def test_a_queue_that_is_not_sound_is_told_and_not_copied(home):
    running(home)
    ledger.add_event(home.queue, 1.0, "x", "something")
    before = copies(home)
    with sqlite3.connect(home.queue.place) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'plan_limits'").fetchone()[0]
    connection.close()
    with open(home.queue.place, "r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\x00" * 4096)

    with pytest.raises(DatabaseCorrupt):
        leave(home)

    assert copies(home) == before


def test_a_lost_home_gets_its_past_back(home):
    running(home)
    home.train(20)
    home.rounds(2)
    home.end_trainer("oom", cause="CUDA out of memory", plan={"micro_batch": 2})
    home.until(lambda: home.trainers.living)
    home.add(spec("b"))
    set_value(home.queue, "b", "runner.priority", -5, home.clock.now)
    home.train(5, save=False)
    home.rounds(2, seconds=AFTER_A_COMMIT_SECONDS)
    home.lose()

    assert home.outcomes() == ["oom", "lost"]
    assert open_attempts(home.queue) == []
    assert [row.step for row in ledger.list_metrics(home.queue, "a")] == list(range(1, 21))
    assert attempts.plan_limit(home.queue, "cpu", "a") == {"micro_batch": 2}
    assert home.job("b").priority == -5
    assert any("oom at step 20" in event.text for event in ledger.list_events(home.queue))
    assert home.daemon.session.id == 2
    home.until(lambda: home.trainers.living)
    assert (home.trainer.attempt, home.trainer.step) == (3, 20)


def test_a_done_job_s_events_come_back_once_from_its_ledger_and_the_copy(home):
    running(home)
    home.train(90)
    with open(home.trainer.run.metrics, "a") as file:
        file.write('{"kind": "event", "step": 90, "event": "samples", "text": "1 sample text in 2.0 s"}\n')
    home.train(10)
    home.until(lambda: home.state() == "succeeded")
    leave(home)
    newest = copies(home)[-1]
    home.lose()

    said = [event.text for event in ledger.list_events(home.queue)]
    assert sum("1 sample text" in text for text in said) == 1
    assert f"came from database copy {newest}" in " ".join(said)
    assert not any("is of no use" in text for text in said)
    assert home.outcomes() == ["completed"]


def test_the_logs_win_over_an_old_copy(home):
    running(home)
    home.train(10)
    home.rounds(2)
    leave(home)
    home.context.mirrored_at = 1e12  # no copy ever after
    home.train(20)
    home.rounds(2)
    home.lose()

    assert [one.commit.step for one in commits(home.context.opened["a"].log.records)] == [10, 30]
    assert home.durable() == 30
    assert [row.step for row in ledger.list_metrics(home.queue, "a")] == list(range(1, 11))
    home.until(lambda: home.trainers.living)
    assert home.trainer.step == 30


def test_a_home_with_a_past_of_its_own_takes_no_other(home, tmp_path, clock):
    other = Home.new(tmp_path / "other", tmp_path / "store", clock)
    other.add(spec("b"))
    other.until(lambda: other.trainers.living)
    running(home)
    leave(home)
    other.kill_daemon()

    assert {job.name for job in jobs.list_jobs(other.queue)} == {"a", "b"}
    assert attempts.list_attempts(other.queue, "a") == []
    assert len(attempts.list_attempts(other.queue, "b")) == 1
    other.queue.close()


def test_a_restored_home_claims_nothing_of_the_one_that_may_still_live(home, tmp_path, clock):
    running(home)
    home.train(10)
    home.rounds(2)
    leave(home)
    second = Home.new(tmp_path / "second", tmp_path / "store", clock)
    second.rounds(3)

    assert not second.trainers.living
    assert "is at work on this job" in second.problem()
    assert second.outcomes() == ["lost"]
    home.train(10)
    home.rounds(2)
    assert home.durable() == 20
    second.queue.close()


def queue_only(folder, spec, fingerprint="print-a"):
    """`enqueue` on a new machine, before `start`."""
    folder.mkdir()
    queue = open_queue(folder / "runner.db")
    jobs.add_job(queue, spec, [CORPUS], fingerprint, 1.0)
    queue.close()


def test_another_job_of_the_same_name_is_left_as_it_was_queued(home, tmp_path, clock):
    running(home)
    home.train(20)
    home.rounds(2, seconds=AFTER_A_COMMIT_SECONDS)
    queue_only(tmp_path / "new", spec(), "another")

    new = Home.new(tmp_path / "new", tmp_path / "store", clock)

    assert (new.durable(), new.job().fingerprint) == (0, "another")
    new.queue.close()


def test_a_job_that_is_queued_again_on_a_new_machine_comes_back_with_all_its_past(home, tmp_path, clock):
    running(home)
    home.train(20)
    home.rounds(2, seconds=AFTER_A_COMMIT_SECONDS)
    leave(home)
    queue_only(tmp_path / "new", spec())

    new = Home.new(tmp_path / "new", tmp_path / "store", clock)

    assert new.durable() == 20
    assert len(ledger.list_metrics(new.queue, "a")) == 20
    assert [one.id for one in attempts.list_attempts(new.queue, "a")] == [1]
    new.queue.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda queue: set_value(queue, "a", "checkpoint.max_loss_minutes", 2.0, 2.0),
        lambda queue: jobs.set_wish(queue, "a", Wish.HOLD, 2.0),
    ],
)
def test_what_a_person_has_changed_before_the_first_start_stays_changed(home, tmp_path, clock, change):
    running(home)
    home.train(20)
    home.rounds(2, seconds=AFTER_A_COMMIT_SECONDS)
    queue_only(tmp_path / "new", spec())
    queue = open_queue(tmp_path / "new" / "runner.db")
    change(queue)
    wanted = jobs.get_job(queue, "a")
    queue.close()

    new = Home.new(tmp_path / "new", tmp_path / "store", clock)

    assert (new.job().spec, new.job().state) == (wanted.spec, wanted.state)
    new.queue.close()
