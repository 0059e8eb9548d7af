"""Read the ledger of a run (`logs/metrics.jsonl`) into typed rows, whatever state a cut has left it in."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """One optimizer step. Loss in nats per token; NaN where the row holds none."""

    step: int
    loss: float
    tokens: int
    lr: float | None = None
    grad_norm: float | None = None
    seconds: float | None = None
    vram_peak_mib: float | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """One pass over the held-out text. Losses in nats per token, sums over the tokens beside them."""

    step: int
    loss: float
    tokens: int
    bits_per_byte: float | None = None
    new_loss: float | None = None
    new_tokens: int | None = None
    base_loss: float | None = None
    base_tokens: int | None = None
    english_bits_per_byte: float | None = None  # a control text that nobody trains on, in the job's own tokens
    english_base_bits_per_byte: float | None = None  # the same in published tokens alone
    ln_v: float | None = None
    checkpoint: str | None = None
    seconds: float | None = None
    structure: Mapping[str, Any] | None = None  # what the rows of P3 have of theirs


@dataclass(frozen=True, kw_only=True)
class EventRow:
    """Something that happened at a step: oom, regime, resume and the like."""

    step: int
    event: str
    text: str = ""
    at: float | None = None


@dataclass(frozen=True)
class Ledger:
    """Rows in the order of their steps, one for each step: a step trained again after a cut counts once."""

    steps: tuple[StepRow, ...] = ()
    evaluations: tuple[EvaluationRow, ...] = ()
    events: tuple[EventRow, ...] = ()
    unreadable_lines: int = 0

    @cached_property
    def last_step(self) -> int:
        ends = [rows[-1].step for rows in (self.steps, self.evaluations, self.events) if rows]
        return max(ends, default=0)

    @cached_property
    def best(self) -> EvaluationRow | None:
        """The evaluation with the lowest finite loss; the first of equals."""
        finite = [row for row in self.evaluations if math.isfinite(row.loss)]
        return min(finite, key=lambda row: row.loss, default=None)

    @cached_property
    def ln_v(self) -> float | None:
        """Nats per token of guessing evenly among all tokens: the line to beat."""
        known = [row.ln_v for row in self.evaluations if row.ln_v is not None and math.isfinite(row.ln_v)]
        return known[-1] if known else None


def read_ledger(path: Path) -> Ledger:
    """The ledger at `path`; an absent file is an empty one, and a torn line is counted and left out."""
    try:
        body = path.read_text("utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return Ledger()
    return parse_ledger(body.splitlines())


def parse_ledger(lines: Iterable[str]) -> Ledger:
    steps: dict[int, StepRow] = {}
    evaluations: dict[int, EvaluationRow] = {}
    events: dict[EventRow, None] = {}
    unreadable = 0
    for line in lines:
        if not line.strip():
            continue
        row = _row(line)
        if isinstance(row, StepRow):
            steps[row.step] = row
        elif isinstance(row, EvaluationRow):
            evaluations[row.step] = row
        elif isinstance(row, EventRow):
            events[row] = None
        else:
            unreadable += 1
    return Ledger(
        steps=tuple(steps[step] for step in sorted(steps)),
        evaluations=tuple(evaluations[step] for step in sorted(evaluations)),
        events=tuple(sorted(events, key=lambda row: row.step)),
        unreadable_lines=unreadable,
    )


def _row(line: str) -> StepRow | EvaluationRow | EventRow | None:
    try:
        table = json.loads(line)
    except ValueError:
        return None
    step = _number(table.get("step")) if isinstance(table, dict) else None
    if step is None or not math.isfinite(step):
        return None
    make = _KINDS.get(str(table.get("kind")))
    return make(int(step), table) if make else None


def _step(step: int, table: Mapping[str, Any]) -> StepRow:
    optional = {key: _number(table.get(key)) for key in ("lr", "grad_norm", "seconds", "vram_peak_mib")}
    return StepRow(step=step, loss=_loss(table), tokens=_count(table.get("tokens")) or 0, **optional)


def _evaluation(step: int, table: Mapping[str, Any]) -> EvaluationRow:
    english = ("english_bits_per_byte", "english_base_bits_per_byte")
    numbers = ("bits_per_byte", "new_loss", "base_loss", *english, "ln_v", "seconds")
    optional = {key: _number(table.get(key)) for key in numbers}
    return EvaluationRow(
        step=step,
        loss=_loss(table),
        tokens=_count(table.get("tokens")) or 0,
        new_tokens=_count(table.get("new_tokens")),
        base_tokens=_count(table.get("base_tokens")),
        checkpoint=str(table["checkpoint"]) if table.get("checkpoint") is not None else None,
        structure=found if isinstance(found := table.get("structure"), dict) else None,
        **optional,
    )


def _event(step: int, table: Mapping[str, Any]) -> EventRow:
    at = _number(table.get("at"))
    return EventRow(step=step, event=str(table.get("event", "")), text=str(table.get("text") or ""), at=at)


_KINDS: dict[str, Callable[[int, Mapping[str, Any]], StepRow | EvaluationRow | EventRow]] = {
    "step": _step,
    "evaluation": _evaluation,
    "event": _event,
}


def _loss(table: Mapping[str, Any]) -> float:
    loss = _number(table.get("loss"))
    return math.nan if loss is None else loss


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def _count(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and math.isfinite(number) else None
