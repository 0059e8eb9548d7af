"""Write a report of one run, or of several side by side.

facts.json holds what the runner's database knows, rows as they stand in its tables, times in seconds since 1970:
`{"JOB": {"state": "...", "reason": "...", "attempts": [{...}], "sessions": [{...}], "events": [{...}]}}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wake2vec.contract.errors import InputError
from wake2vec.contract.files import read_json, write_atomic
from wake2vec.contract.options import ReportOptions
from wake2vec.show.facts import read_facts
from wake2vec.show.report.page import page
from wake2vec.show.report.reading import RunView, read_run
from wake2vec.show.write import write_artefacts


def write_report(out: Path, roots: Sequence[Path], *, runner: dict[str, Any] | None, now: datetime) -> Path:
    """Raises InputError where a folder is no run directory, OSError where `out` cannot be written."""
    views = [read_run(root, runner) for root in roots]
    write_atomic(out, page(views, now=now).encode(), durable=False)
    return out


def rebuild(view: RunView) -> None:
    """Bring the run's own artefacts up to its ledger; where the job is not known, they stay."""
    facts = read_facts(view.run)
    if view.job is not None and facts is not None:
        write_artefacts(view.run, job=view.job, facts=facts)


def run(options: ReportOptions) -> None:
    """The runs' own pictures and tables are brought up to their ledgers too."""
    runner = _runner_facts(options.facts)
    for root in options.runs:
        rebuild(read_run(root))
    print(write_report(options.out, options.runs, runner=runner, now=datetime.now(UTC)))


def _runner_facts(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    table = read_json(path)
    if not isinstance(table, dict):
        raise InputError(path, "is not a JSON object of jobs")
    return table
