"""G1, G10: Drive fills up before an upload, then in the middle of one; training goes on, and uploads when they can."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from runner.queue import checkpoints
from tests.drive_server.faults import Fault, Rule
from tests.drive_server.server import DriveServer
from tests.faults.world import ROOT, World, assert_whole, fake_spec, wait_until

PACE = {"seconds_per_step": 0.2, "save_every": 2, "evaluate_every": 100}
QUICK = {"seconds_per_step": 0.001, "save_every": 100, "evaluate_every": 100}
PLENTY = 15 << 30
FULL = Fault("status", 403, "storageQuotaExceeded")


def problem(world: World) -> str:
    with world.queue() as queue:
        return checkpoints.log_state(queue, "a").problem


def needs(world: World) -> str:
    """What `status` tells a person to do."""
    command = [str(Path(sys.executable).parent / "wake2vec-runner"), "--home", str(world.home()), "status", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return " ".join(f"{need['cause']} {need['command']}" for need in json.loads(done.stdout)["needs"])


def test_training_goes_on_while_drive_is_full_and_uploads_resume(tmp_path: Path) -> None:
    with DriveServer(tmp_path / "google") as server:
        world = World(tmp_path, url="drive:wake2vec")
        try:
            world.add(fake_spec("a", steps=300, every=100))
            daemon = world.start(environment=server.environ(), told=PACE)
            for is_half_sent in (False, True):
                kept = world.durable_step()
                wait_until(lambda kept=kept: world.durable_step() > kept, what="another commit")
                wait_until(lambda: problem(world) == "", what="the trouble before to be over")
                if is_half_sent:
                    server.faults.rules.append(Rule(FULL, match="PUT /session/", skip=2, times=10**6))
                else:
                    server.drive.quota_bytes = 0
                wait_until(lambda: "uploads wait" in problem(world), what="the trouble told")
                reached, kept = world.step(), world.durable_step()
                wait_until(lambda reached=reached: world.step() >= reached + 4, what="more steps")

                assert daemon.poll() is None
                assert world.durable_step() == kept
                assert "empty" in needs(world)
                server.drive.quota_bytes = PLENTY
                server.faults.rules.clear()

            daemon.send_signal(signal.SIGTERM)
            world.wait(daemon)
            assert world.run(environment=server.environ(), told=QUICK) == 0
            assert_whole(world, steps=300)
            assert server.drive.counts["inserted"] == len(server.drive.files) + server.drive.counts["deleted"]
        finally:
            world.close()
