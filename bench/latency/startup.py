"""Measure how long the command line needs to start: CPU seconds of `--help` and of `status` over a long history."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.publish.status_picture import JOB, history

PROGRAM = Path(sys.executable).with_name("wake2vec-runner")
RUNS = 9


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    words: list[str]
    limit_seconds: float


@dataclass(frozen=True, kw_only=True)
class Timing:
    """CPU seconds (user and system) of one process, best and median of several."""

    name: str
    best_seconds: float
    median_seconds: float
    limit_seconds: float

    @property
    def is_within(self) -> bool:
        return self.best_seconds <= self.limit_seconds


def measure(case: Case) -> Timing:
    seconds = []
    for _ in range(RUNS):
        process = subprocess.Popen([PROGRAM, *case.words], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"{case.name}: exit code {process.returncode}")
        seconds.append(usage.ru_utime + usage.ru_stime)
    ordered = sorted(seconds)
    return Timing(
        name=case.name,
        best_seconds=round(ordered[0], 3),
        median_seconds=round(ordered[RUNS // 2], 3),
        limit_seconds=case.limit_seconds,
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        history(Path(folder))
        home = ["--home", folder]
        cases = [
            Case(name="--help", words=["--help"], limit_seconds=0.15),
            Case(name="status, 20 sessions", words=[*home, "status", "--once"], limit_seconds=0.5),
            Case(name="status --json", words=[*home, "status", "--json"], limit_seconds=0.5),
            Case(name="log", words=[*home, "log", JOB], limit_seconds=1.0),
        ]
        timings = [measure(case) for case in cases]
    table = Table("command", "best, s CPU", "median", "limit, s", "", title=f"start-up, best of {RUNS}")
    for one in timings:
        figures = (one.best_seconds, one.median_seconds, one.limit_seconds)
        table.add_row(one.name, *(f"{seconds:.3f}" for seconds in figures), "within" if one.is_within else "OVER")
    Console().print(table)
    machine = {"python": platform.python_version(), "machine": platform.machine(), "processor": _processor()}
    place = Path(__file__).parents[1] / "results" / "startup.json"
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps({"machine": machine, "timings": [asdict(one) for one in timings]}, indent=1) + "\n")
    sys.exit(0 if all(one.is_within for one in timings) else 1)


def _processor() -> str:
    place = Path("/proc/cpuinfo")
    lines = place.read_text().splitlines() if place.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


if __name__ == "__main__":
    main()
