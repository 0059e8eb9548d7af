"""Measure what a machine with nothing on it needs from `start` to the first new step, beside loading the model.

`python -m bench.restore`: the real runner against the loopback Drive, which answers after 0.3 s and at 50 MB/s at
most. A job is stopped half way, its home deleted and a new one started; the trainer is the tests' own, which loads no
model but verifies its checkpoint like the real one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

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
        "restores": rows,
    }
    place = Path(__file__).parent / "results" / "restore.json"
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


if __name__ == "__main__":
    main()
