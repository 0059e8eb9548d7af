"""rebuild: the database from the logs alone, and nothing lost that only the old one knew."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from runner.commands import rebuild
from runner.errors import DaemonRunning, StoreUnavailable
from runner.queue import checkpoints, jobs
from runner.queue.database import open_queue
from runner.screen.daemon_note import DaemonNote, write_note
from runner.settings import Settings, read_settings
from tests.machine import Machine, job_file, quick_machine
from wake2vec.contract.lock import hold_lock


def settings_of(machine: Machine) -> Settings:
    return read_settings(machine.home, f"dir:{machine.store}", {})


def names(machine: Machine) -> list[str]:
    queue = open_queue(machine.home / "runner.db")
    try:
        return [job.name for job in jobs.list_jobs(queue)]
    finally:
        queue.close()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A home whose finished job is in the store, and whose second job never was there."""
    trainer = [sys.executable, str(Path(__file__).parents[3] / "fake_trainer.py")]
    machine = quick_machine(home=tmp_path / "home", store=tmp_path / "store", trainer=trainer)
    first = job_file(tmp_path, "first", of="tiny_p1", train__steps=40)
    machine.run("enqueue", str(first))
    machine.finish()
    machine.run("enqueue", str(job_file(tmp_path, "second", of="tiny_p1", train__steps=20)))
    return machine


def test_jobs_come_back_from_the_logs_and_local_ones_stay(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    write_note(machine.home, DaemonNote(written_at=0.0, newest_event=1000))  # of the database that is put aside
    rebuild.run(settings_of(machine))

    assert sorted(names(machine)) == ["first", "second"]
    queue = open_queue(machine.home / "runner.db")
    assert checkpoints.durable_step(queue, "first") == 40
    queue.close()
    assert "1 from the store, 1 that the store has not heard of" in capsys.readouterr().out
    assert len(list(machine.home.glob("runner.db.before-rebuild-*"))) == 1
    assert not list(machine.home.glob("*corrupt*"))
    assert "what was written last is missing" not in machine.run("status", "--once")


def test_a_corrupt_database_is_no_hindrance(machine: Machine) -> None:
    for path in machine.home.glob("runner.db*"):
        path.unlink()
    (machine.home / "runner.db").write_bytes(b"not a database" * 100)

    rebuild.run(settings_of(machine))

    assert names(machine) == ["first"]
    assert len(list(machine.home.glob("runner.db.corrupt-*"))) == 1


def test_a_home_at_work_is_left_alone(machine: Machine) -> None:
    with hold_lock(machine.home / "daemon.lock", {"pid": 1}), pytest.raises(DaemonRunning):
        rebuild.run(settings_of(machine))


def test_without_its_store_nothing_is_set_aside(machine: Machine) -> None:
    shutil.rmtree(machine.store)
    machine.store.write_text("a file where the store was")

    with pytest.raises(StoreUnavailable):
        rebuild.run(settings_of(machine))

    assert names(machine) == ["first", "second"]
