"""Measure what looking costs: a tick, a round of the sync loop and `status`, beside the number of jobs and of steps.

`python -m bench.latency.queue [LABEL]`: the real queue, tick, sync and command line on a home made for it; the trainer
is an object that takes a step when told to, the store a folder. An idle look finds nothing new; in a training one, the
running job has taken a step since. Seconds are of the processor; what was measured under another label stays beside it.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy import event

from wake2vec.contract.spec import JOB_SPEC, JobSpec

PLACE = Path(__file__).parents[1] / "results" / "queue.json"
SEGMENTS = 100  # of each job
SIZES = ((1, 5_000), (1_000, 0), (1_000, 5_000))  # jobs, steps that each has in the ledger
LOOKS = 10
TICK_MS, STATUS_SECONDS = 5.0, 0.5

# Half of the jobs are done; of the others, half have begun, and one runs.
LEDGER = """
INSERT INTO metrics WITH RECURSIVE step(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM step WHERE n < :steps)
    SELECT name, n, 3.0 + 1.0 / n, 8192, 1e-3, 0.5, 0.7 FROM jobs, step;
INSERT INTO evaluations (job, step, loss) SELECT job, step, loss FROM metrics WHERE step % 100 = 0;
"""
PAST = """
UPDATE logs SET done_at = 2.0 WHERE job IN (SELECT name FROM jobs WHERE number % 2 = 0);
UPDATE jobs SET state = 'succeeded', kept_step = steps WHERE number % 2 = 0;
INSERT INTO checkpoints SELECT job, last_step, hex(randomblob(32)), 900000000, 1.0, 2.0, 0 FROM segments
    JOIN jobs ON jobs.name = segments.job WHERE jobs.number % 2 = 0 OR (jobs.number % 4 = 3 AND last_step <= 2500);
UPDATE segments SET done_at = 2.0 WHERE EXISTS
    (SELECT 1 FROM checkpoints WHERE checkpoints.job = segments.job AND checkpoints.step = segments.last_step);
INSERT INTO events (at, job, kind, text)
    SELECT done_at, job, 'durable', 'a segment is done' FROM segments WHERE done_at IS NOT NULL;
"""


def main(label: str) -> None:
    vars(os)["fsync"] = lambda _: None  # the disk is not what is measured, and a thousand jobs wait for it long
    found = json.loads(PLACE.read_text()) if PLACE.is_file() else {}
    rows = []
    for jobs, steps in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append({"jobs": jobs, "ledger_steps": steps, **measure(Path(folder), jobs, steps)})
    found[label] = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, "cores": os.cpu_count()}
    found[label]["rows"] = rows
    PLACE.write_text(json.dumps(found, indent=1) + "\n")
    show(found)
    largest = rows[-1]
    is_within = max(largest["idle tick"]["ms"], largest["training tick"]["ms"]) <= TICK_MS
    sys.exit(0 if is_within and largest["status"]["wall_s"] <= STATUS_SECONDS else 1)


def measure(folder: Path, jobs: int, steps: int) -> dict[str, Any]:
    simulated = import_module("tests.simulated")
    home = simulated.Home.new(folder / "home", folder / "store", simulated.Clock())
    names = [f"job{number:04d}" for number in range(1, jobs + 1)]
    for name in names:
        home.add(spec_of(name, first=name == names[0]))
    while home.state(names[0]) != "running":  # meanwhile the store hears of every job
        home.rounds()
    home.rounds(2)
    if jobs > 1:
        give_a_past(home.folder / "runner.db", steps)
    home.train(1)
    home.rounds(12)  # what was held for the others is given back

    def step() -> None:
        home.trainer.take_steps(1)

    def step_and_tick() -> None:
        step()
        home.tick()

    found = {
        "idle tick": look(home, home.tick, lambda: None),
        "training tick": look(home, home.tick, step),
        "idle sync round": look(home, home.sync, lambda: None),
        "training sync round": look(home, home.sync, step_and_tick),
    }
    home.queue.close()
    return {**found, "status": status(home.folder)}


def spec_of(name: str, *, first: bool) -> JobSpec:
    table = {
        "name": name,
        "phase": "p1",
        "model": {"base": "none"},
        "vocab": {"lexicon": "none"},
        "data": {"corpus": "none"},
        "train": {"steps": 5_000, "lr": 1e-3},
        "checkpoint": {"every_steps": 5_000 // SEGMENTS},
        "runner": {"priority": int(first)},
    }
    return JOB_SPEC.validate_python(table)


def give_a_past(path: Path, steps: int) -> None:
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.executescript(PAST)
        database.executescript(LEDGER.replace(":steps", str(steps)) if steps else "")
    database.close()


def look(home: Any, action: Callable[[], None], before: Callable[[], object]) -> dict[str, Any]:
    """Transactions of one look, and the processor's milliseconds for it, in the mean."""
    begun: list[str] = []

    def count(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if statement.startswith("BEGIN"):
            begun.append(statement)

    for _ in range(3):  # what a first look has to learn
        before()
        home.clock.monotonic += 1.0
        action()
    seconds = 0.0
    event.listen(home.queue.engine, "before_cursor_execute", count)
    for _ in range(LOOKS):
        before()
        home.clock.monotonic += 1.0
        begun.clear()
        start = time.process_time()
        action()
        seconds += time.process_time() - start
    event.remove(home.queue.engine, "before_cursor_execute", count)
    writes = sum(one == "BEGIN IMMEDIATE" for one in begun)
    return {"reads": len(begun) - writes, "writes": writes, "ms": round(1e3 * seconds / LOOKS, 2)}


def status(home: Path) -> dict[str, float]:
    """The best of three, since a busy machine only ever adds."""
    command = [str(Path(sys.executable).parent / "wake2vec-runner"), "--home", str(home), "status", "--once"]
    walls, processors = [], []
    for _ in range(3):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        walls.append(time.monotonic() - start)
        processors.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"wall_s": round(min(walls), 2), "cpu_s": round(min(processors), 2)}


def show(found: dict[str, Any]) -> None:
    kinds = ("idle tick", "training tick", "idle sync round", "training sync round")
    table = Table("", "jobs", "steps each", *(f"{kind}: reads, writes, ms" for kind in kinds), "status, s of CPU")
    for label, part in found.items():
        for row in part["rows"]:
            cells = [f"{row[kind]['reads']}, {row[kind]['writes']}, {row[kind]['ms']:.1f}" for kind in kinds]
            table.add_row(
                label, f"{row['jobs']:,}", f"{row['ledger_steps']:,}", *cells, f"{row['status']['cpu_s']:.2f}"
            )
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "now")
