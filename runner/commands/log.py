"""log: what a job did and what its trainers printed; -f goes on as it happens."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from runner.errors import RunnerError, UnknownJob
from runner.machine.joblog import read_log
from runner.queue import attempts, jobs, ledger
from runner.queue.database import Queue, open_queue
from runner.screen.timeline import Line, Timeline, last_lines, lines_of
from runner.settings import Settings
from wake2vec.contract.rundir import RunDir

LOOK_SECONDS = 0.5


def run(settings: Settings, name: str, *, follow: bool, attempt: int | None, count: int, as_json: bool) -> None:
    """Raises UnknownJob, or RunnerError when it never had that attempt."""
    if isinstance(settings.database, Path) and not settings.database.is_file():
        raise UnknownJob(f"{name}: there is no such job; nothing was ever queued in {settings.home}")
    with open_queue(settings.database) as queue:
        timeline = _timeline(settings, queue, name)
        known = [one.id for one in timeline.attempts]
        if attempt is not None and attempt not in known:
            raise RunnerError(f"{name}: has no attempt {attempt}; it has {', '.join(map(str, known)) or 'none yet'}")
        lines = last_lines(lines_of(timeline), attempt, count)
        _print(lines, as_json)
        if not lines and not follow and not as_json:
            print(f"{name}: nothing has run yet")
        if follow:
            with suppress(KeyboardInterrupt):
                _follow(settings, queue, name, attempt, as_json, {line.key for line in lines_of(timeline)})


def _timeline(settings: Settings, queue: Queue, name: str) -> Timeline:
    jobs.get_job(queue, name)
    return Timeline(
        job=name,
        attempts=attempts.list_attempts(queue, name),
        metrics=ledger.list_metrics(queue, name),
        evaluations=ledger.list_evaluations(queue, name),
        printed=list(read_log(RunDir(root=settings.runs / name).log)),
    )


def _follow(settings: Settings, queue: Queue, name: str, attempt: int | None, as_json: bool, told: set[str]) -> None:
    """Until the job has ended; a daemon that starts later is waited for."""
    while True:
        is_final = jobs.get_job(queue, name).is_final
        new = [
            line for line in last_lines(lines_of(_timeline(settings, queue, name)), attempt, 0) if line.key not in told
        ]
        _print(new, as_json)
        told |= {line.key for line in new}
        if is_final:
            return
        time.sleep(LOOK_SECONDS)


def _print(lines: list[Line], as_json: bool) -> None:
    for line in lines:
        if as_json:
            table = {key: value for key, value in asdict(line).items() if key != "key"}
            print(json.dumps(table | {"text": line.text.strip()}, ensure_ascii=False))
        else:
            print(line.text)
    sys.stdout.flush()
