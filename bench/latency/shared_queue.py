"""Load a shared queue: 200 workers take and end 10,000 jobs in PostgreSQL; and 100,000 segments in SQLite.

`python -m bench.latency.shared_queue`: a server of the system's package that writes to the disk (fsync), started and
stopped here. A worker does what a daemon does of a job: take it, claim it, end its attempt. Workers are threads in
processes, each with a connection of its own; all share this machine's cores with the server.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import threading
import time
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, text

from bench.latency.queue import spec_of
from runner.errors import IllegalTransition
from runner.queue import attempts, jobs, sharing
from runner.queue.database import Queue, open_queue
from runner.queue.segments import close_segments
from runner.queue.tables import attempts as attempt_rows
from runner.queue.tables import checkpoints, homes, keepers, logs, segments
from runner.queue.tables import jobs as job_rows
from runner.queue.view import see
from runner.settings import Server
from runner.states import Change, Outcome, Verdict
from wake2vec.contract.spec import JobSpec

PLACE = Path(__file__).parents[1] / "results" / "shared_queue.json"
SILENT_SECONDS, LONGEST_WAIT = 180.0, 1800.0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, default=10_000)
    options.add_argument("--workers", type=int, default=200)
    options.add_argument("--processes", type=int, default=8)
    chosen = options.parse_args()
    with import_module("tests.postgres_server").running(f"max_connections={chosen.workers + 20}") as server:
        rows: dict[str, Any] = {
            "postgres": [
                claims(server.new_database(), count, workers, min(chosen.processes, workers))
                for count, workers in ((chosen.jobs // 10, 10), (chosen.jobs, chosen.workers))
            ]
        }
    with tempfile.TemporaryDirectory() as folder:
        rows["sqlite"] = many_segments(Path(folder) / "runner.db", 100_000)
    found = {"date": time.strftime("%Y-%m-%d"), "python": platform.python_version(), "cores": os.cpu_count(), **rows}
    PLACE.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def claims(url: str, count: int, workers: int, processes: int) -> dict[str, Any]:
    with open_queue(Server(url=url, home="bench")) as queue:
        fill(queue, count)
        looks = look(queue)
        share = -(-workers // processes)
        context = multiprocessing.get_context("fork")
        results: Any = context.Queue()
        gate = context.Barrier(share * processes)  # all have a connection before the first one claims
        children = [
            context.Process(target=work, args=(url, number, share, gate, results)) for number in range(processes)
        ]
        queue.close()
        for child in children:
            child.start()
        found = [results.get() for _ in children]
        for child in children:
            child.join()
        seconds = max(one["ended"] for one in found) - min(one["began"] for one in found)
        with queue.read() as connection:
            claimed = list(connection.scalars(select(attempt_rows.c.job)))
            version = connection.exec_driver_sql("SHOW server_version").scalar_one()
        waits = sorted(wait for one in found for wait in one["waits"])
    return {
        "server": version,
        "jobs": count,
        "workers": share * processes,
        "processes": processes,
        "seconds": round(seconds, 1),
        "claims_per_s": round(len(claimed) / seconds, 1),
        "double_claims": sum(times - 1 for times in Counter(claimed).values()),
        "unclaimed": count - len(set(claimed)),
        "refused": sum(one["refused"] for one in found),
        "median_ms": round(1e3 * statistics.median(waits), 1),
        "p99_ms": round(1e3 * waits[int(0.99 * len(waits))], 1),
        **looks,
    }


def fill(queue: Queue, count: int) -> None:
    """As `enqueue` would, and their texts in the store."""
    spec = spec_of("job", first=False).model_dump_json()
    names = [f"job{number:06d}" for number in range(count)]
    base = {"phase": "p1", "state": "queued", "priority": 0, "spec": spec, "inputs": "[]", "steps": 5000}
    with queue.write() as connection:
        rows = [
            {"name": name, "number": number, "fingerprint": name, "created_at": 1.0, "changed_at": 1.0, **base}
            for number, name in enumerate(names, start=1)
        ]
        connection.execute(insert(job_rows), rows)
        connection.execute(insert(logs), [{"job": name, "created_at": 1.0} for name in names])
        connection.execute(insert(keepers), [{"job": name, "home": "bench", "wanted": False} for name in names])
        connection.execute(text("ANALYZE"))


def look(queue: Queue) -> dict[str, float]:
    """What a daemon's look costs where somebody has written since, and where nobody has."""
    times = {}
    for kind in ("first", "unchanged", "changed"):
        if kind == "changed":
            jobs.update_job(queue, "job000000", reason="x")
        began = time.monotonic()
        see(queue)
        times[f"look_{kind}_ms"] = round(1e3 * (time.monotonic() - began), 1)
    return times


def work(url: str, process: int, share: int, gate: Any, results: Any) -> None:
    waits: list[float] = []
    refused: list[str] = []
    begins: list[float] = []
    threads = [
        threading.Thread(target=one_worker, args=(url, f"home{process}-{number}", gate, begins, waits, refused))
        for number in range(share)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put({"waits": waits, "refused": len(refused), "began": min(begins), "ended": time.monotonic()})


def one_worker(url: str, home: str, gate: Any, begins: list[float], waits: list[float], refused: list[str]) -> None:
    with open_queue(Server(url=url, home=home)) as queue:
        sharing.enter(queue, "bench", SILENT_SECONDS)
        session = attempts.open_session(queue, machine=home, platform="plain", gpu="", started_at=1.0, now=time.time())
        gate.wait()
        with queue.read() as connection:
            living = list(connection.scalars(select(homes.c.name)))
        begins.append(time.monotonic())
        while True:
            began = time.monotonic()
            names = sharing.take(queue, 1, time.time(), living=living, longest_wait=LONGEST_WAIT)
            if not names:
                return
            try:
                one = attempts.claim(queue, names[0], session=session.id, gpu=0, first_step=0, now=time.time())
            except IllegalTransition:
                refused.append(names[0])
                continue
            waits.append(time.monotonic() - began)
            done = Verdict(change=Change.SUCCEED)
            attempts.close_attempt(
                queue, one, done, time.time(), outcome=Outcome.COMPLETED, last_step=5000, kept_step=5000
            )


def many_segments(path: Path, count: int) -> dict[str, Any]:
    """100 jobs of 1,000 segments: one more is closed by a durable checkpoint, and all that a look reads."""
    with open_queue(path) as queue:
        for number in range(count // 1000):
            name = f"job{number:03d}"
            spec: JobSpec = spec_of(name, first=False)
            jobs.add_job(queue, spec, [], name, 1.0)
        with queue.write() as connection:
            connection.execute(segments.delete())
            for number in range(count // 1000):
                row = [
                    {"job": f"job{number:03d}", "number": step + 1, "first_step": 5 * step, "last_step": 5 * step + 5}
                    for step in range(1000)
                ]
                connection.execute(insert(segments), row)
        times = []
        for step in range(5, 105, 5):
            row_of = {"job": "job050", "step": step, "manifest_sha256": str(step), "size": 1, "durable_at": 2.0}
            with queue.write() as connection:
                connection.execute(insert(checkpoints), [row_of])
                began = time.monotonic()
                close_segments(connection, "job050")
                times.append(time.monotonic() - began)
        began = time.monotonic()
        see(queue)
        return {
            "segments": count,
            "close_one_ms": round(1e3 * statistics.median(times), 2),
            "look_ms": round(1e3 * (time.monotonic() - began), 1),
            "file_mib": round(path.stat().st_size / 2**20, 1),
        }


if __name__ == "__main__":
    main()
