"""A run's ledger (`logs/metrics.jsonl`): its rows, declared here once, how they are written, and how they are read.

Imports no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from wake2vec.contract.files import make_directory, write_atomic


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """One optimizer step. Loss in nats per token; NaN where the row holds none."""

    kind: ClassVar[str] = "step"
    step: int  # steps completed
    loss: float = math.nan
    tokens: int = 0
    lr: float | None = None
    grad_norm: float | None = None
    entries_changed: float | None = None  # share of the trained numbers that the update moved
    rows_moving: float | None = None
    lora_b_norm: float | None = None
    structure: dict[str, Any] | None = None  # what each auxiliary term of P3 came to
    seconds: float | None = None
    attempt: int | None = None
    vram_peak_mib: float | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """One pass over the held-out text. Losses in nats per token, sums over the tokens beside them."""

    kind: ClassVar[str] = "evaluation"
    step: int
    loss: float = math.nan
    tokens: int = 0
    bits_per_byte: float | None = None
    bytes: int | None = None
    new_loss: float | None = None
    new_tokens: int | None = None
    base_loss: float | None = None
    base_tokens: int | None = None
    english_bits_per_byte: float | None = None  # a control text that nobody trains on, in the job's own tokens
    english_base_bits_per_byte: float | None = None  # the same in published tokens alone
    ln_v: float | None = None  # nats of guessing evenly among all tokens: the line to beat
    checkpoint: str | None = None
    seconds: float | None = None
    structure: dict[str, Any] | None = None  # what the rows of P3 have of theirs


@dataclass(frozen=True, kw_only=True)
class EventRow:
    """Something that happened at a step: oom, regime, resume and the like."""

    kind: ClassVar[str] = "event"
    step: int
    event: str = ""
    text: str = ""


Row = StepRow | EvaluationRow | EventRow


def to_json(row: Row) -> dict[str, Any]:
    """As a line and a checkpoint hold it; what was not measured is left out."""
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    return {"kind": row.kind} | {name: value for name, value in values.items() if value is not None}


def from_json(table: Any) -> Row | None:
    """The row in a line; None where it is none. What is missing, or is not of its kind, is left at its default.

    Keys that no field has, of a later version or of one phase alone, stay in the line and are passed over here.
    """
    if not isinstance(table, dict) or _count(table.get("step")) is None:
        return None
    kind = _KINDS.get(str(table.get("kind")))
    if kind is None:
        return None
    found = {
        field.name: _READ[str(field.type).split()[0].split("[")[0]](table.get(field.name)) for field in fields(kind)
    }
    return kind(**{name: value for name, value in found.items() if value is not None})


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def _count(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and math.isfinite(number) else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _table(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


_KINDS: dict[str, type[StepRow | EvaluationRow | EventRow]] = {
    kind.kind: kind for kind in (StepRow, EvaluationRow, EventRow)
}
_READ: Mapping[str, Callable[[Any], Any]] = {"int": _count, "float": _number, "str": _text, "dict": _table}


class _Measured(Protocol):
    @property
    def step(self) -> int: ...

    @property
    def loss(self) -> float | None: ...


M = TypeVar("M", bound=_Measured)


def best(rows: Iterable[M]) -> M | None:
    """The evaluation with the lowest finite loss; the first of equals."""
    finite = [(row.loss, row.step, row) for row in rows if row.loss is not None and math.isfinite(row.loss)]
    return min(finite, key=lambda one: one[:2])[2] if finite else None


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
        return best(self.evaluations)

    @cached_property
    def ln_v(self) -> float | None:
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
    rows = [_row(line) for line in lines if line.strip()]
    steps = {row.step: row for row in rows if isinstance(row, StepRow)}
    evaluations = {row.step: row for row in rows if isinstance(row, EvaluationRow)}
    events = dict.fromkeys(row for row in rows if isinstance(row, EventRow))
    return Ledger(
        steps=tuple(steps[step] for step in sorted(steps)),
        evaluations=tuple(evaluations[step] for step in sorted(evaluations)),
        events=tuple(sorted(events, key=lambda row: row.step)),
        unreadable_lines=rows.count(None),
    )


def _row(line: str) -> Row | None:
    return from_json(_loaded(line))


def tables_of(lines: Iterable[str | bytes]) -> list[dict[str, Any]]:
    """Rows with all that their lines say. A line that a cut has torn is passed over: a resume writes the file anew."""
    tables = map(_loaded, lines)
    return [table for table in tables if isinstance(table, dict) and isinstance(table.get("step"), int)]


def _loaded(line: str | bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


class LedgerFile:
    """The ledger on disk: rewritten from the checkpoint at a resume, then appended to.

    Not fsynced line by line: a checkpoint holds every row up to its step, and later rows are made again. It is
    rewritten when the run is complete, since nobody makes rows again after that.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def rewrite(self, rows: Iterable[Mapping[str, Any]]) -> None:
        write_atomic(self._path, "".join(_line(row) for row in rows).encode())

    def append(self, row: Mapping[str, Any]) -> None:
        make_directory(self._path.parent)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(_line(row))


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
