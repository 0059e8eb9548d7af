"""G1, G2: a machine vanishes with everything on it, and an empty one carries on from Drive to the same bits."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.drive_server.faults import CHANCES
from tests.drive_server.server import DriveServer
from tests.faults.world import World, assert_whole, expected_weights, fake_spec, wait_until

PACE = {"seconds_per_step": 0.02, "save_every": 5}


@pytest.mark.parametrize("rate", [pytest.param(0.0, marks=pytest.mark.sweep), 0.03])
def test_an_empty_machine_goes_on_from_drive(tmp_path: Path, rate: float) -> None:
    with DriveServer(tmp_path / "google") as server:
        server.faults.rate = rate
        server.faults.chances = tuple(fault for fault in CHANCES if fault.kind != "stall")
        world = World(tmp_path, url="drive:wake2vec")
        try:
            world.add(fake_spec("a", steps=60), told=PACE)
            daemon = world.start("home", environment=server.environ(), told=PACE)
            wait_until(lambda: world.durable_step("a") >= 20, what="a milestone in Drive")
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
            world.kill_trainer()
            shutil.rmtree(tmp_path / "home")

            code = world.run("new", environment=server.environ(), told=PACE, seconds=300)

            assert code == 0, world.output("new")[-3000:]
            assert_whole(world, "a", 60, "new", fingerprint="print-a")
            assert world.weights("a", "new") == expected_weights("print-a", 60)
            assert any("restored from Google Drive" in text for text in world.events("new"))
        finally:
            world.close()
