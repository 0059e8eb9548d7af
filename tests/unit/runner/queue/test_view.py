"""The view that tick and sync have of the queue: as new as a reading, and seldom one."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import event

from runner.errors import DatabaseCorrupt
from runner.queue import attempts, checkpoints, jobs, ledger
from runner.queue.database import Queue, open_queue
from runner.queue.view import Sight, see
from runner.states import State, Wish
from tests.simulated import Clock, Home, open_attempts
from tests.unit.runner.conftest import CORPUS, job_spec


def add(queue: Queue, name: str = "a") -> None:
    jobs.add_job(queue, job_spec(name), [CORPUS], f"print-{name}", 1.0)


def begun(queue: Queue) -> list[str]:
    """The transactions that begin from now on."""
    found: list[str] = []

    @event.listens_for(queue.engine, "before_cursor_execute")
    def count(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        if statement.startswith("BEGIN"):
            found.append(statement)

    return found


def test_it_shows_what_separate_readings_show(queue: Queue) -> None:
    add(queue)
    add(queue, "b")
    session = attempts.open_session(queue, machine="m", platform="plain", gpu="", started_at=1.0, now=1.0)
    attempts.claim(queue, "a", session=session.id, gpu=0, first_step=0, now=2.0)
    checkpoints.mark_saved(queue, "b", 20, manifest_sha256="x", size=7, now=2.0)
    checkpoints.set_log_state(queue, "a", 3.0, fenced=True, problem="taken")
    with queue.write() as connection:
        ledger.add_regime(connection, "b", 0, {"what": "set"}, 4.0)

    view = see(queue)

    assert view.jobs == jobs.list_jobs(queue)
    assert view.attempts == open_attempts(queue)
    assert [view.log(name) for name in "ab"] == [checkpoints.log_state(queue, name) for name in "ab"]
    assert view.checkpoints("b") == checkpoints.list_checkpoints(queue, "b")
    assert view.regimes == ledger.list_regimes(queue, "b")
    assert view.largest == {"b": 7}


def test_where_nobody_wrote_nothing_is_read_again(queue: Queue) -> None:
    add(queue)

    assert see(queue) is see(queue)


@pytest.mark.parametrize("writer", ["this process", "another"])
def test_whoever_writes_is_seen_at_the_next_look(queue: Queue, writer: str) -> None:
    add(queue)
    add(queue, "b")
    sight = Sight(queue)
    before = sight.view
    other = queue if writer == "this process" else open_queue(queue.place)

    jobs.set_wish(other, "a", Wish.HOLD, 2.0)

    after = sight.look()
    assert [job.state for job in after.jobs] == [State.HELD, State.QUEUED]
    assert after.by_name["b"] is before.by_name["b"]  # with all that was parsed of it
    if other is not queue:
        other.close()


def test_a_round_sees_what_it_has_written_itself(queue: Queue) -> None:
    add(queue)
    sight = Sight(queue)
    assert sight.view.checkpoints("a") == []

    checkpoints.mark_saved(queue, "a", 20, manifest_sha256="x", size=7, now=2.0)

    assert [one.step for one in sight.view.checkpoints("a")] == [20]


def test_lines_of_the_ledger_are_no_reason_to_look_again(file_queue: Queue) -> None:
    add(file_queue)
    sight = Sight(file_queue)
    found = begun(file_queue)

    ledger.import_ledger(file_queue, "a", [{"kind": "step", "step": 1, "loss": 2.0}], 2.0, from_start=False)
    _ = sight.view

    assert found == ["BEGIN IMMEDIATE"]


@pytest.mark.parametrize("when", ["before", "after", None])
def test_a_tick_that_only_took_over_lines_of_the_ledger_reads_no_row_again(file_queue: Queue, when: str | None) -> None:
    add(file_queue)
    other, before = open_queue(file_queue.place), see(file_queue)
    if when == "before":
        jobs.set_wish(other, "a", Wish.HOLD, 2.0)

    ledger.import_ledger(file_queue, "a", [{"kind": "step", "step": 1, "loss": 2.0}], 2.0, from_start=False)

    if when == "after":
        jobs.set_wish(other, "a", Wish.HOLD, 2.0)
    after = see(file_queue)
    assert (after.job_rows is before.job_rows) == (when is None)
    assert after.jobs == jobs.list_jobs(other)
    other.close()


def test_a_damaged_database_is_named(file_queue: Queue) -> None:
    add(file_queue)
    file_queue.close()
    body = file_queue.place.read_bytes()
    file_queue.place.write_bytes(body[:4096] + b"\xff" * (len(body) - 4096))

    with pytest.raises(DatabaseCorrupt, match=r"runner\.db"):
        see(file_queue)


@pytest.mark.parametrize("others", [0, 30])
def test_an_idle_tick_and_an_idle_round_read_once_whatever_waits(tmp_path: Path, others: int) -> None:
    home = Home.new(tmp_path / "home", tmp_path / "store", Clock())
    home.add(job_spec("a", steps=60, checkpoint={"every_steps": 20}))
    home.until(lambda: home.state() == "running")
    home.train(20)
    for number in range(others):
        home.add(job_spec(f"other{number}"))
    home.rounds(35)  # the store is seen to hold each of them, one a round

    found = begun(home.queue)
    home.clock.monotonic += 1.0
    home.tick()
    assert found == ["BEGIN"]
    home.sync()
    assert found == ["BEGIN", "BEGIN"]
    home.queue.close()
