"""From one way of signing in to Google to another: what the other cannot see, one command takes along."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.drive_server.server import DriveServer
from tests.machine import job_file, quick_machine


def test_a_store_is_taken_along_to_another_sign_in_by_one_command(tmp_path: Path) -> None:
    job = job_file(
        tmp_path, "p1", of="tiny_p1", train__steps=20, checkpoint__every_steps=10, evaluate__every_steps=20,
        evaluate__max_windows=2, evaluate__samples=0,
    )  # fmt: skip
    with DriveServer(tmp_path / "by a click") as clicked, DriveServer(tmp_path / "by a token") as token:
        machine = quick_machine(home=tmp_path / "home", store="drive:wake2vec", environment=clicked.environ())
        machine.run("enqueue", str(job))
        machine.finish()
        before = machine.outcome("p1")
        machine.environment = token.environ()

        asked = machine.run("repair")
        done = machine.run("repair", "--yes")
        shutil.rmtree(machine.home)
        machine.run("export", "p1", "--to", str(tmp_path / "out"))

    assert "nothing was changed" in asked
    assert "read back and verified" in done
    assert (tmp_path / "out" / "config.json").is_file()
    assert machine.final("p1") == before["final"]
