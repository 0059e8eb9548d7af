"""report: one HTML page of one job, or of several side by side, rebuilt from the ledger."""

from __future__ import annotations

import json
import tempfile
import webbrowser
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runner.commands.results.process import run_folder, use
from runner.queue import attempts, jobs, ledger
from runner.queue.database import Queue, open_queue
from runner.settings import Settings
from wake2vec.contract.options import ReportOptions

MOST_EVENTS = 100_000


def run(settings: Settings, names: Sequence[str], out: Path | None) -> None:
    """Exits with the report's own code; the page lies in the run directory of a single job, else in the home."""
    runs = [run_folder(settings, name, history_will_do=True).root for name in names]
    target = out or (runs[0] / "report.html" if len(runs) == 1 else settings.home / "report.html")
    with open_queue(settings.database) as queue:
        facts = {name: _facts(queue, name) for name in names}
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(facts, file, ensure_ascii=False)
        file.flush()
        use(ReportOptions(out=target, runs=runs, facts=Path(file.name)))


def show(settings: Settings, name: str) -> None:
    """The report as it is now; where no browser can be had, its path stands in what `report` says."""
    run(settings, [name], None)
    webbrowser.open((settings.runs / name / "report.html").as_uri())


def _facts(queue: Queue, name: str) -> dict[str, Any]:
    job = jobs.get_job(queue, name)
    mine = attempts.list_attempts(queue, name)
    known = {attempt.session for attempt in mine}
    return {
        "state": job.state,
        "reason": job.reason,
        "attempts": [asdict(attempt) for attempt in mine],
        "sessions": [asdict(one) for one in attempts.list_sessions(queue) if one.id in known],
        "events": [asdict(event) for event in ledger.list_events(queue, job=name, limit=MOST_EVENTS)],
    }
