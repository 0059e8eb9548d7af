"""replay: whether a run repeats an earlier one, and the first step and value in which it does not."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from runner.commands.results.process import run_folder
from runner.errors import RunnerError
from runner.settings import Settings
from wake2vec.contract.expectation import first_difference
from wake2vec.contract.ledger import tables_of


def run(settings: Settings, name: str, other: str, *, within: float, as_json: bool) -> None:
    """Exits with 1 where they part. Raises RunnerError where they have no step in common."""
    found, compared = first_difference(ledger_rows(settings, name), ledger_rows(settings, other), within=within)
    if not compared:
        raise RunnerError(f"{name} and {other} have no step in common yet")
    if as_json:
        part = None if found is None else asdict(found) | {"share": found.share}
        print(json.dumps({"format": 1, "jobs": [name, other], "compared": compared, "first_difference": part}))
    elif found is None:
        how = f"within {within:g}" if within else "to the last digit"
        print(f"{name} repeats {other}: {compared:,} steps and evaluations, {how}")
    else:
        share = "" if found.share is None else f" ({found.share:.2g} of it)"
        print(f"{name} parts from {other} at step {found.step:,}, {found.kind}: {found.value}")
        print(f"  {found.here} here, {found.there} there{share}")
    if found is not None:
        sys.exit(1)


def ledger_rows(settings: Settings, name: str) -> list[dict[str, Any]]:
    """What a run wrote down, step by step. Raises what run_folder does."""
    return tables_of(run_folder(settings, name, history_will_do=True).metrics.read_text("utf-8").splitlines())
