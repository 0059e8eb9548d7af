"""G1 and G2 over Google Drive: half way the machine vanishes, an empty one carries on, and the bits are the same."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.drive_server.server import DriveServer
from tests.machine import job_file, quick_machine, short_text, slowly_from


def durable_steps(server: DriveServer) -> int:
    """Checkpoints that are whole in Drive, by their manifests."""
    titles = [str(file.metadata["title"]) for file in list(server.drive.files.values())]
    return sum(title.endswith("/manifest.json") for title in titles)


@pytest.mark.sweep  # in `make test` a job moves over Drive from machine to machine: test_a_month.py
def test_a_job_half_done_is_finished_by_an_empty_machine(tmp_path: Path) -> None:
    job = job_file(
        tmp_path, "p1", of="tiny_p1", model__load="fp32", train__steps=40, checkpoint__every_steps=5,
        evaluate__every_steps=20, evaluate__max_windows=4, evaluate__samples=0, **short_text(tmp_path),
    )  # fmt: skip
    uncut = quick_machine(home=tmp_path / "uncut", store=tmp_path / "store")
    uncut.run("enqueue", str(job))
    uncut.finish()
    with DriveServer(tmp_path / "google") as server:
        server.faults.rate = 0.01
        machine = quick_machine(home=tmp_path / "home", store="drive:wake2vec", environment=server.environ())
        machine.environment |= (slow := slowly_from(12))
        machine.run("enqueue", str(job))
        machine.start("--until-empty")
        give_up = time.monotonic() + 300
        while durable_steps(server) < 3:
            assert machine.is_alive, machine.start_log.read_text()[-4000:]
            assert time.monotonic() < give_up, machine.start_log.read_text()[-4000:]
            time.sleep(0.02)
        machine.power_cut()
        shutil.rmtree(machine.home)
        for name in slow:
            del machine.environment[name]

        machine.start("--until-empty", "--take-over")
        machine.finish()

    assert "restoring p1 from Google Drive" in machine.start_log.read_text()
    assert machine.outcome("p1") == uncut.outcome("p1")
