"""Measure what a machine with nothing on it needs from `start` to the first new step, beside loading the model.

`python -m bench.latency.restore`: the real runner against the loopback Drive, which answers after 0.3 s and whose one
line carries 50 MB/s, however many connections use it. A job is stopped half way, its home deleted and a new one
started; the trainer is the tests' own, which loads no model but verifies its checkpoint like the real one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from runner.store.drive.store import open_drive
from runner.store.drive.transfer import FILES_AT_ONCE, PIECES_AT_ONCE, Throttle
from runner.store.publish import publish_files
from wake2vec.contract.files import digest_file

BYTES_PER_SECOND = 50e6
CALL_SECONDS = 0.3  # before each answer, as a far Drive takes
LIMIT_SECONDS = 60.0
SIZES_MIB = (100, 300, 880)
SLOW = {"seconds_per_step": 0.5, "save_every": 20}


def main() -> None:
    rows = []
    for size in SIZES_MIB:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(Path(folder), size))
    table = Table("checkpoint, MiB", "to the first new step, s", "of that for the bytes", "limit, s", "")
    for row in rows:
        is_within = row["seconds"] <= LIMIT_SECONDS
        wire = f"{row['checkpoint_mib'] * 2**20 / BYTES_PER_SECOND:.1f}"
        figures = (f"{row['checkpoint_mib']:,}", f"{row['seconds']:.1f}", wire, f"{LIMIT_SECONDS:.0f}")
        table.add_row(*figures, "within" if is_within else "OVER")
    Console().print(table)
    found = {
        "bytes_per_second": BYTES_PER_SECOND,
        "call_seconds": CALL_SECONDS,
        "cores": os.cpu_count(),
        "connections": {"restore": PIECES_AT_ONCE, "upload": FILES_AT_ONCE},
        "restores": rows,
    }
    place = Path(__file__).parents[1] / "results" / "restore.json"
    found["uploads"] = [upload(at_once) for at_once in (1, FILES_AT_ONCE)]
    found["before"] = json.loads(place.read_text())["before"]  # pieces of 8 MiB, one after the other
    place.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(0 if all(row["seconds"] <= LIMIT_SECONDS for row in rows) else 1)


def measure(folder: Path, size_mib: int) -> dict[str, Any]:
    """One job, stopped cleanly half way; a home that vanished waits for its lease on top, unless `--take-over`."""
    world_of = import_module("tests.faults.world")
    server_of, faults_of = import_module("tests.drive_server.server"), import_module("tests.drive_server.faults")
    told = {**SLOW, "pad_mib": size_mib}
    with server_of.DriveServer(folder / "google") as server:
        world = world_of.World(folder, url="drive:wake2vec", grace_seconds=120.0)
        try:
            world.add(world_of.fake_spec("a", steps=1000, every=20))
            daemon = world.start(environment=server.environ(), told=told)
            world_of.wait_until(lambda: world.durable_step() >= 20, 300, "a checkpoint in the store")
            daemon.send_signal(signal.SIGTERM)
            world.wait(daemon, seconds=300)
            durable = world.durable_step()
            shutil.rmtree(folder / "home")
            link = faults_of.Fault("slow", bytes_per_second=BYTES_PER_SECOND, seconds=CALL_SECONDS)
            server.faults.rules.append(faults_of.Rule(link, times=10**9))
            before = server.faults.calls
            world.home("new")
            began = time.monotonic()
            world.start("new", environment=server.environ(), told=told)
            world_of.wait_until(lambda: world.step(home="new") > durable, 600, "a new step")
            seconds = time.monotonic() - began - SLOW["seconds_per_step"]
            return {"checkpoint_mib": size_mib, "seconds": round(seconds, 1), "calls": server.faults.calls - before}
        finally:
            world.close()


def upload(at_once: int) -> dict[str, Any]:
    """Two files of half the largest size, as rows and their optimizer are, on one connection or more."""
    server_of, faults_of = import_module("tests.drive_server.server"), import_module("tests.drive_server.faults")
    with tempfile.TemporaryDirectory() as folder, server_of.DriveServer(Path(folder) / "google") as server:
        paths = {name: Path(folder) / name for name in ("trainable", "optimizer", "manifest")}
        for path in paths.values():
            path.write_bytes(os.urandom(SIZES_MIB[-1] << 19 if path.name != "manifest" else 1000))
        digests = {name: digest_file(path) for name, path in paths.items()}
        store = open_drive("wake2vec", Path(folder) / "home", server.environ(), _Throttle(most=at_once))
        link = faults_of.Fault("slow", bytes_per_second=BYTES_PER_SECOND, seconds=CALL_SECONDS)
        server.faults.rules.append(faults_of.Rule(link, times=10**9))
        began = time.monotonic()
        publish_files(store, paths, digests, folder="x", known={}, journal=Path(folder) / "journal")
        seconds = round(time.monotonic() - began, 1)
        return {"checkpoint_mib": SIZES_MIB[-1], "connections": at_once, "seconds": seconds}


@dataclass(frozen=True, kw_only=True)
class _Throttle(Throttle):
    most: int

    def at_once(self, most: int) -> int:
        return min(most, self.most)


if __name__ == "__main__":
    main()
