"""`start` as a newcomer sees it: in a pipe, on a terminal, and where nothing can go on without a person."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.machine import Machine, job_file, quick_machine

SMALL: dict[str, Any] = {
    "of": "tiny_p1", "checkpoint__every_steps": 2, "evaluate__every_steps": 2, "evaluate__max_windows": 4,
    "evaluate__samples": 0,
}  # fmt: skip


def machine(folder: Path, name: str = "home") -> Machine:
    home = folder / name
    home.mkdir(parents=True)
    made = quick_machine(home=home, store=folder / "store", environment={"TERM": "xterm", "COLUMNS": "80"})
    (home / "settings.toml").write_text(made.settings_file)
    return made


def test_a_name_that_other_work_has_in_the_store_ends_the_run_with_the_way_out(tmp_path: Path) -> None:
    first, second = machine(tmp_path, "one"), machine(tmp_path, "two")
    first.run("enqueue", str(job_file(first.home, "same", train__steps=2, **SMALL)))
    first.run("start", "--until-empty")
    other = job_file(second.home, "same", train__steps=2, train__lr=4e-3, **SMALL)
    queue_in_spite_of_the_store(second, other)

    told = second.run("start", "--until-empty", expect=22)

    assert "error: only jobs that need you are left" in told
    assert "wake2vec-runner cancel same" in told
    second.run("cancel", "same")
    assert "same: cancelled" in second.run("start", "--until-empty")


def queue_in_spite_of_the_store(machine: Machine, file: Path) -> None:
    """As an `enqueue` on a machine that could not ask the store."""
    elsewhere = quick_machine(home=machine.home, store=machine.home.parent / "nowhere", environment=machine.environment)
    elsewhere.run("enqueue", str(file))


def test_what_cannot_be_sent_is_waited_for_and_then_ends_with_a_code_of_its_own(tmp_path: Path) -> None:
    here = machine(tmp_path)
    here.run("enqueue", str(job_file(tmp_path, "a", train__steps=6, **SMALL)))
    here.start("--until-empty", "--store-patience", "0.01")
    while not list((here.store / "jobs" / "a").glob("checkpoint*")):
        time.sleep(0.05)
    here.store.rename(tmp_path / "gone")
    here.store.symlink_to(here.store)  # an error at every look; a store that is missing would be lost, not away

    assert here.daemon is not None
    assert here.daemon.wait(timeout=300) == 23
    told = here.start_log.read_text()
    assert re.search(r"trouble: .*; training goes on", told)
    assert "nothing else is left to do; the store is waited for until" in told
    assert "on this machine only, not in the store after" in told
    here.store.unlink()
    (tmp_path / "gone").rename(here.store)
    assert "a: succeeded" in here.run("start", "--until-empty")


def test_a_pipe_hears_of_every_evaluation_and_commit_and_is_never_silent_for_long(tmp_path: Path) -> None:
    here = machine(tmp_path)
    here.run("enqueue", str(job_file(tmp_path, "a", train__steps=6, **SMALL)))

    told = here.run("start", "--until-empty")

    for step in (0, 2, 4, 6):
        assert f"a: step {step}: held-out " in told
    assert "is durable in " in told
    assert "\x1b" not in told
    assert "\r" not in told


def test_a_terminal_has_a_picture_that_is_drawn_anew_and_gone_at_the_end(tmp_path: Path) -> None:
    here = machine(tmp_path)
    here.run("enqueue", str(job_file(tmp_path, "a", train__steps=200, **SMALL)))
    master, slave = pty.openpty()
    process = subprocess.Popen(here.command("start"), env=here.surroundings, stdout=slave, stderr=slave, close_fds=True)
    os.close(slave)
    try:
        body = read_until(master, rb"now +a: step \d+ of 200")
        process.send_signal(signal.SIGINT)
        body += read_until(master, rb"a: queued; step \d+ of 200 is safe in the store")
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
        os.close(master)
    assert b"\x1b[J" in body
    assert b"store    " in body


def read_until(master: int, wanted: bytes, seconds: float = 240) -> bytes:
    body, end = b"", time.monotonic() + seconds
    while not re.search(wanted, body):
        assert select.select([master], [], [], max(0.0, end - time.monotonic()))[0], body[-2000:]
        body += os.read(master, 65536)
    return body
