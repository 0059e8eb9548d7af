"""study: queue the jobs of a study that are not known yet, and show what all of them have come to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from runner.commands import enqueue
from runner.commands.results import report
from runner.commands.results.replay import ledger_rows
from runner.jobfile.study import Variant, read_study, sources
from runner.queue import jobs
from runner.queue.database import open_queue
from runner.settings import Settings
from wake2vec.contract.expectation import value_at

# what a P3 is judged by, where its evaluations have it
FIGURES = {
    "held_out_consistency": "structure.consistency.held_out",
    "held_out_gain": "structure.consistency.held_out_gain",
    "p": "structure.consistency.held_out_gain_null.p",
    "trained_gain": "structure.consistency.trained_gain",
    "analogy_acc1": "structure.analogy.acc1",
    "analogy_mrr": "structure.analogy.mrr",
    "device_balanced_accuracy": "structure.devices.value",
    "device_held_out_accuracy": "structure.devices.held_out.value",
    "device_p": "structure.devices.held_out.p",
}


def run(settings: Settings, file: Path, *, out: Path | None, as_json: bool) -> None:
    """Raises what `enqueue` raises; then nothing is queued. A second call shows how far the study is."""
    variants = read_study(file)
    if {one.name for one in variants} - _states(settings).keys():
        wanted = enqueue.Asked(if_new=True, variants=[(one.file, one.pairs) for one in variants])
        enqueue.run(settings, sources(variants), wanted, as_json=False, quiet=as_json)
    rows = figures_of(settings, variants)
    if as_json:
        print(json.dumps({"format": 1, "study": file.stem, "runs": rows}, ensure_ascii=False, indent=1))
        return
    _show(rows)
    if begun := [row["job"] for row in rows if row["step"] is not None]:
        report.run(settings, begun, out or settings.home / f"{file.stem}.html")


def figures_of(settings: Settings, variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """A row for each job, of its best evaluation; the text's loss decides which that is."""
    states, found = _states(settings), []
    for one in variants:
        rows = ledger_rows(settings, one.name) if (settings.runs / one.name / "logs").is_dir() else []
        evaluations = [row for row in rows if row["kind"] == "evaluation" and row["step"] > 0]
        best = min(evaluations, key=lambda row: float(row["loss"]), default={})
        row = {"job": one.name, **one.label, "state": states.get(one.name), "step": best.get("step")}
        row |= {"bits_per_byte": best.get("bits_per_byte")}
        row |= {key: value for key, place in FIGURES.items() if (value := value_at(best, place)) is not None}
        found.append(row | {"verdict": (best.get("structure") or {}).get("verdict")})
    return found


def _states(settings: Settings) -> dict[str, Any]:
    with open_queue(settings.database) as queue:
        return {job.name: job.state for job in jobs.list_jobs(queue)}


def _show(rows: Sequence[dict[str, Any]]) -> None:
    console = Console(highlight=False)
    for lines in _tables(rows, console.width):
        table = Table(box=None, pad_edge=False, show_header=False)
        for cells in lines:
            table.add_row(*cells)
        console.print(table)
    for row in rows:
        if row["verdict"]:
            console.print(f"{row['job']}: {row['verdict']}")


def _tables(rows: Sequence[dict[str, Any]], width: int) -> Iterator[list[tuple[str, ...]]]:
    """A line for each job; where that is too wide a column for each, as many as fit: no figure is cut."""
    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if key != "verdict"]
    lines = [tuple(_cell(row.get(key)) for key in keys) for row in rows]
    if sum(2 + max(map(len, column)) for column in zip(keys, *lines, strict=True)) <= width:
        yield [tuple(keys), *lines]
        return
    beside = (width - max(map(len, keys))) // (2 + max(len(cell) for line in lines for cell in line))
    for first in range(0, len(lines), max(1, beside)):
        yield list(zip(keys, *lines[first : first + max(1, beside)], strict=True))


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)
