"""list: a line for every job, and an exit code that a script can wait for."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from runner.errors import NeedsYou, UnknownJob
from runner.screen.look import look
from runner.screen.snapshot import JobPart
from runner.settings import Settings
from runner.states import State

STILL_MOVING = 26


def run(settings: Settings, names: Sequence[str], *, state: State | None, as_json: bool) -> int:
    """Print the jobs; returns what their states come to. Raises UnknownJob."""
    every = {job.name: job for job in look(settings, time.time()).jobs}
    if unknown := [name for name in names if name not in every]:
        raise UnknownJob(f"{', '.join(unknown)}: no job of that name here; there are: {', '.join(every) or 'none'}")
    chosen = [job for job in every.values() if (not names or job.name in names) and state in (None, job.state)]
    if as_json:
        print(json.dumps({"format": 1, "jobs": [_as_json(job) for job in chosen]}, indent=1))
    else:
        widths = [max((len(row[column]) for row in map(_row, chosen)), default=0) for column in range(3)]
        for job in chosen:
            print("  ".join(cell.ljust(width) for cell, width in zip(_row(job), (*widths, 0), strict=True)).rstrip())
    return code_of(chosen)


def code_of(chosen: Sequence[JobPart]) -> int:
    """0 when all are done, 1 when one failed, 22 when one waits for a person, else that they still move."""
    states = {job.state for job in chosen}
    if states & {State.FAILED, State.CANCELLED}:
        return 1
    if any(job.waits_for_a_person or job.command for job in chosen) or State.HELD in states:
        return NeedsYou.exit_code
    return 0 if states <= {State.SUCCEEDED} else STILL_MOVING


def _row(job: JobPart) -> tuple[str, str, str, str]:
    of = "?" if job.steps is None else f"{job.steps:,}"
    return job.name, job.state, f"{job.trained:,}/{of}", f"{job.durable:,} durable"


def _as_json(job: JobPart) -> dict[str, object]:
    return {name: getattr(job, name) for name in ("name", "state", "phase", "trained", "steps", "durable")}
