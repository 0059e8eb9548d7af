"""The protocol behind a clean end: a daemon that is signalled in every phase leaves everything safe."""

from __future__ import annotations

import itertools
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from tests.faults.protocols.runner import PACE, a_world, faults_of, two_jobs
from tests.faults.protocols.trainer import figures_of
from tests.faults.world import World, wait_until
from wake2vec.contract.failpoints import VARIABLE
from wake2vec.contract.manifest import saved_steps

PHASES = {
    "dispatch.ordered": "launching",
    "launcher.started": "launching",
    "checkpoint.begin": "saving",
    "sync.publish": "uploading",
    "store.written": "uploading",
    "sync.committed": "committing",
    "sync.pruned": "pruning",
    "sync.finish": "closing the job",
    "sync.done": "closing the job",
}
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LEAVING_SECONDS = 60.0  # far above the grace time of a small world, for machines under load


def signals_to_daemons(places: Sequence[str] = tuple(PHASES), numbers: Sequence[int] = SIGNALS) -> dict[str, Any]:
    """The daemon rests a second at the place and is signalled there; it must leave with all that is saved durable."""
    started, runs, unstartable, wrong = time.monotonic(), 0, 0, []
    for place, number in itertools.product(places, numbers):
        with a_world() as world:
            two_jobs(world)
            found = _signalled(world, place, number)
            runs += 1
            unstartable += world.run(told=PACE, seconds=120) != 0
            wrong += [f"{place}, {signal.Signals(number).name}: {fault}" for fault in (*found, *faults_of(world))]
    return figures_of(started, runs, unstartable, wrong, places=list(places))


def _signalled(world: World, place: str, number: int) -> list[str]:
    trace = world.root / "trace.txt"
    daemon = world.start(told=PACE, environment={VARIABLE: f"trace={trace},{place}=stall:1"})
    wait_until(lambda: trace.is_file() and place in trace.read_text().split(), 60, place)
    daemon.send_signal(number)
    try:
        code = daemon.wait(timeout=LEAVING_SECONDS)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
        return ["it did not leave"]
    found = [] if code == 130 else [f"exit code {code}"]
    if world.trainer() is not None:
        found.append("its trainer lives on")
    saved = max(saved_steps(world.run_dir()), default=0)
    if world.durable_step() != saved:
        found.append(f"{saved} is saved, {world.durable_step()} is durable; it said: {world.output()[-2000:]}")
    return found
