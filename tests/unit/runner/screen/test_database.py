from __future__ import annotations

import os
import sqlite3

import pytest

from runner.errors import DatabaseCorrupt, HomeUnusable
from runner.queue import attempts, checkpoints, jobs, ledger
from runner.screen.database import read_database
from runner.states import Change, State, Wish
from tests.unit.runner.conftest import CORPUS, job_spec


def _fill(queue):
    for name in "ab":
        jobs.add_job(queue, job_spec(name), [CORPUS], name, 1.0)
    session = attempts.open_session(queue, machine="m", platform="colab", gpu="T4", started_at=1.0, now=1.0)
    attempts.claim(queue, "a", session=session.id, gpu=0, first_step=0, now=2.0)
    checkpoints.mark_saved(queue, "a", 20, manifest_sha256="0", size=9, now=3.0)
    checkpoints.mark_durable(queue, "a", 10, manifest_sha256="0", size=9, now=3.0)
    checkpoints.set_log_state(queue, "a", 3.0, epoch=1, problem="the store is away")
    lines = [{"kind": "step", "step": step, "loss": 1.0, "seconds": 2.0} for step in range(1, 6)]
    lines.append({"kind": "evaluation", "step": 5, "loss": 3.0, "ln_v": 9.0})
    lines += [{"kind": "event", "step": step, "event": "oom", "text": "no room"} for step in (2, 3)]
    ledger.import_ledger(queue, "a", lines, 4.0, from_start=True)
    jobs.set_wish(queue, "b", Wish.HOLD, 5.0)
    jobs.set_wish(queue, "a", Wish.CANCEL, 5.0)


def test_what_it_reads_is_what_the_queue_gives_out(queue):
    _fill(queue)

    moment = read_database(queue.place)

    assert moment.jobs == jobs.list_jobs(queue)
    assert [job.state for job in moment.jobs] == [State.RUNNING, State.HELD]
    assert moment.sessions == attempts.list_sessions(queue)
    assert moment.segments == {"a": jobs.list_segments(queue, "a")}
    assert moment.pieces == {"a": (3, 0, 500), "b": (3, 0, 500)}
    assert moment.attempts == {"a": attempts.list_attempts(queue, "a")}
    assert moment.checkpoints == {"a": checkpoints.list_checkpoints(queue, "a")}
    assert moment.metrics == {"a": ledger.list_metrics(queue, "a")}
    assert moment.evaluations == {"a": ledger.list_evaluations(queue, "a")}
    assert moment.logs == {"a": checkpoints.log_state(queue, "a")}
    assert moment.events == ledger.list_events(queue, limit=40)
    assert moment.counts == {("a", "oom"): 2}


def test_of_a_job_out_of_focus_it_reads_what_decides_its_line(queue):
    for name in "ab":
        jobs.add_job(queue, job_spec(name), [CORPUS], name, 1.0)
        losses = [(1, 9.0), (2, 7.0), (3, None), (4, 7.0), (5, 8.0)]
        lines = [{"kind": "evaluation", "step": step, "loss": loss} for step, loss in losses]
        ledger.import_ledger(queue, name, lines, 2.0, from_start=True)
        for step in (200, 300, 400):
            checkpoints.mark_durable(queue, name, step, manifest_sha256="0", size=9, now=3.0)
            checkpoints.mark_saved(queue, name, step + 50, manifest_sha256="0", size=9, now=4.0)
        checkpoints.quarantine(queue, name, 450)
    jobs.change_state(queue, "b", Change.SUCCEED, 5.0)

    moment = read_database(queue.place)

    assert [one.step for one in moment.evaluations["a"]] == [2, 5]
    assert [one.step for one in moment.evaluations["b"]] == [1, 2, 3, 4, 5]
    assert [one.step for one in moment.checkpoints["a"]] == [350, 400]
    assert moment.pieces["a"] == (3, 2, 500)
    assert list(moment.segments) == ["b"]


def test_it_writes_nothing_and_waits_for_nobody(file_queue):
    _fill(file_queue)
    before = file_queue.place.read_bytes()

    with file_queue.write() as connection:
        connection.exec_driver_sql("UPDATE jobs SET priority = 9")
        moment = read_database(file_queue.place)  # while a writer holds its lock

    assert {job.priority for job in moment.jobs} == {0}
    assert file_queue.place.read_bytes() == before


def test_a_folder_that_may_not_be_written_can_be_read(file_queue, tmp_path):
    _fill(file_queue)
    file_queue.close()
    os.chmod(file_queue.place, 0o444)
    os.chmod(file_queue.place.parent, 0o555)
    try:
        assert len(read_database(file_queue.place).jobs) == 2
    finally:
        os.chmod(file_queue.place.parent, 0o755)


def test_no_database_and_an_empty_file_are_an_empty_queue(tmp_path):
    (tmp_path / "empty.db").touch()

    assert read_database(tmp_path / "none.db").jobs == []
    assert read_database(tmp_path / "empty.db").jobs == []
    assert not (tmp_path / "none.db").exists()


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "runner.db").write_bytes(b"not a database at all" * 100)

    with pytest.raises(DatabaseCorrupt, match=r"runner\.db"):
        read_database(tmp_path / "runner.db")


def test_the_database_of_a_newer_version_is_refused(file_queue):
    file_queue.close()
    with sqlite3.connect(file_queue.place) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(HomeUnusable, match="newer wake2vec-runner"):
        read_database(file_queue.place)


def test_a_queue_of_a_version_that_did_not_know_job_files_is_read(file_queue, tmp_path):
    _fill(file_queue)
    jobs.add_jobs(file_queue, [(job_spec("c"), [CORPUS], "c")], 1.0, paths={"c": tmp_path / "c.toml"})
    jobs.change_state(file_queue, "c", Change.FAIL, 2.0)
    told = read_database(file_queue.place).files

    with file_queue.write() as connection:
        connection.exec_driver_sql("DROP TABLE files")

    assert told == {"c": f"{tmp_path}/c.toml"}
    assert read_database(file_queue.place).files == {}
    assert len(read_database(file_queue.place).jobs) == 3
