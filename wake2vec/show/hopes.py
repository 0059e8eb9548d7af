"""What a job came to, beside the untouched model, the held-out text and luck: `eval/hopes.json` and `hopes.md`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from wake2vec.contract.files import counted, read_json, write_atomic
from wake2vec.contract.rundir import RunDir
from wake2vec.show.text import figure
from wake2vec.show.write import strict

HEAD = ("figure", "model", "untouched", "held-out text", "change", "95 %", "by chance", "p", "of")
MEANING = """\
change: the model's figure less that of the untouched model, each with its own tokenizer on the same bytes. 95 %: of the
change where there is one, else of the figure, by drawing what it is "of" again. by chance: what would stand there if
nothing but luck were at work; p: how often luck alone goes as far."""


class Hope(StrEnum):
    """What the work is for, each with its figures."""

    CONTEXT = "Wake words in context"
    STYLE = "Wake style"
    GEOMETRY = "Geometry kept"
    ENGLISH = "No forgetting"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure, with all that it is to be judged by."""

    hope: Hope
    key: str
    name: str
    value: float | None  # None: no number, as nothing is that a broken model gives
    untouched: float | None = None
    human: float | None = None
    low: float | None = None  # of the change where there is an untouched figure, else of the value
    high: float | None = None
    null: float | None = None
    p: float | None = None
    of: int = 0
    unit: str = ""  # that was drawn again, so many of them
    text: str = ""

    @property
    def change(self) -> float | None:
        return None if self.value is None or self.untouched is None else self.value - self.untouched

    def cells(self) -> tuple[str, ...]:
        """In the columns of HEAD."""
        low, high = (figure(end, sign=self.change is not None) for end in (self.low, self.high))
        return (
            self.name,
            *(figure(value) for value in (self.value, self.untouched, self.human)),
            figure(self.change, sign=True),
            "–" if self.low is None else f"{low} to {high}",
            figure(self.null),
            "–" if self.p is None else "< 0.001" if self.p < 0.001 else f"{self.p:.3f}",
            counted(self.of, self.unit.removesuffix("s")) if self.of else "–",
        )


@dataclass(frozen=True, kw_only=True)
class Hopes:
    """All figures of a step. `notes` say who the scorer is, what is trivial, and what could not be measured."""

    step: int
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]

    def by_hope(self) -> Iterable[tuple[Hope, list[Figure]]]:
        for hope in Hope:
            if found := [one for one in self.figures if one.hope is hope]:
                yield hope, found


def write_hopes(run: RunDir, hopes: Hopes) -> Path:
    """Both files; returns the readable one."""
    rows = [{**asdict(one), "change": one.change} for one in hopes.figures]
    body = {"format": 1, "step": hopes.step, "figures": rows, "notes": hopes.notes}
    text = json.dumps(strict(body), ensure_ascii=False, allow_nan=False, indent=1)
    write_atomic(run.evaluation / "hopes.json", f"{text}\n".encode())
    readable = run.evaluation / "hopes.md"
    write_atomic(readable, as_text(hopes).encode(), durable=False)
    return readable


def read_hopes(run: RunDir) -> Hopes | None:
    """None where nothing was measured, or it cannot be read; what a later version adds is passed over."""
    table = read_json(run.evaluation / "hopes.json")
    with suppress(TypeError, ValueError, KeyError, AttributeError):
        if isinstance(table, dict):
            found = tuple(_figure(row) for row in table["figures"])
            return Hopes(step=int(table["step"]), figures=found, notes=tuple(map(str, table["notes"])))
    return None


def _figure(row: Mapping[str, Any]) -> Figure:
    known = {field.name: row[field.name] for field in fields(Figure) if field.name in row}
    return Figure(**{**known, "hope": Hope(row["hope"])})


def as_text(hopes: Hopes) -> str:
    lines = [f"# What step {hopes.step:,} came to", ""]
    for hope, found in hopes.by_hope():
        lines += [f"## {hope}", "", *_table([HEAD, *(one.cells() for one in found)]), ""]
        lines += [f"- {one.name}: {one.text}" for one in found if one.text]
        lines.append("")
    return "\n".join([*lines, *(f"- {note}" for note in hopes.notes), "", MEANING, ""])


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|:--" + "|--:" * (len(HEAD) - 1) + "|", *lines[1:]]
