"""Write a report: `python -m wake2vec.artefacts.report OUT.html RUN_DIR... [--facts facts.json] [--geometry]`.

facts.json holds what the runner's database knows, rows as they stand in its tables, times in seconds since 1970:
`{"JOB": {"state": "...", "reason": "...", "attempts": [{...}], "sessions": [{...}], "events": [{...}]}}`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wake2vec.artefacts.facts import read_facts
from wake2vec.artefacts.report.page import page
from wake2vec.artefacts.report.reading import RunView, read_run
from wake2vec.artefacts.write import write_artefacts
from wake2vec.errors import InputError, Wake2vecError
from wake2vec.files import read_json, write_atomic
from wake2vec.rundir import RunDir


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


def measure_rows(run: RunDir) -> None:
    """Geometry and drift film; a run without rows of its own, such as P2, is told of and has a report all the same."""
    from wake2vec.geometry.__main__ import measure, write_the_film

    try:
        measure(run, say=lambda text: print(f"measuring {text}", file=sys.stderr, flush=True))
        write_the_film(run)
    except Wake2vecError as error:
        print(f"no geometry: {error}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m wake2vec.artefacts.report", description="Write a report of runs.")
    parser.add_argument("out", type=Path, help="the HTML file to write")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR", help="run directories, compared when several")
    parser.add_argument("--facts", type=Path, help="JSON of attempts, sessions and events from the runner's database")
    parser.add_argument("--keep", action="store_true", help="leave the runs' own pictures and tables as they are")
    parser.add_argument("--geometry", action="store_true", help="measure the new rows first: takes minutes and torch")
    asked = parser.parse_args(arguments)
    try:
        runner = _runner_facts(asked.facts)
        for root in asked.runs if not asked.keep else ():
            rebuild(read_run(root))
        for root in asked.runs if asked.geometry else ():
            measure_rows(RunDir(root=root))
        print(write_report(asked.out, asked.runs, runner=runner, now=datetime.now(UTC)))
    except Wake2vecError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"{error.filename or asked.out}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _runner_facts(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    table = read_json(path)
    if not isinstance(table, dict):
        raise InputError(path, "is not a JSON object of jobs", "leave --facts out to go without it")
    return table


if __name__ == "__main__":
    sys.exit(main())
