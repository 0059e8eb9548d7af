"""Golden values in a job file, `val = 5.1486 at 900 within 0.001`, and the rows of two ledgers. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wake2vec.contract.files import at

_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
_LINE = re.compile(rf"([a-z][\w.-]*) = ({_NUMBER}) at (\d+) within ({_NUMBER})")
_STOP = re.compile(r"val > (\d+(?:\.\d+)?) at (\d+)")
FORM = 'the form "VALUE = NUMBER at STEP within NUMBER", for example "val = 5.1486 at 900 within 0.001"'


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """`val` is the held-out loss, `loss` that of a step; any other value by its name, `structure.verdict` by dots."""

    value: str
    number: float
    step: int
    within: float

    def found(self, row: Mapping[str, Any]) -> float | None:
        """What a row says of it; None where it is another step or says nothing."""
        if row.get("step") != self.step or (self.value == "loss" and row.get("kind") != "step"):
            return None
        if self.value == "val":
            return value_at(row, "loss") if row.get("kind") == "evaluation" else None
        return value_at(row, self.value)


def parse_expectation(line: str) -> Expectation:
    """Raises ValueError with the form that is wanted."""
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"expected {FORM}")
    value, number, step, within = found.groups()
    return Expectation(value=value, number=float(number), step=int(step), within=float(within))


def parse_stop_rule(rule: str) -> tuple[float, int]:
    """Nats and step of `val > 5.40 at 600`. Raises ValueError with the form that is wanted."""
    found = _STOP.fullmatch(rule)
    if found is None:
        raise ValueError('expected the form "val > NATS at STEP", for example "val > 5.40 at 600"')
    return float(found[1]), int(found[2])


def mismatches(row: Mapping[str, Any], lines: Iterable[str]) -> Iterator[str]:
    """What a new row of the ledger is not, in words."""
    for one in map(parse_expectation, lines):
        found = one.found(row)
        if found is not None and not abs(found - one.number) <= one.within:
            yield f"{one.value} is {found:.6g}, expected {one.number:g} within {one.within:g}"


def value_at(row: Mapping[str, Any], dotted: str) -> float | None:
    value = at(row, dotted.split("."))
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else None


# Of when and where a step ran, not of what it computed.
INCIDENTAL = frozenset({"seconds", "attempt", "vram_peak_mib", "checkpoint", "kind", "step"})


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The first value in which two ledgers part."""

    step: int
    kind: str
    value: str
    here: Any
    there: Any

    @property
    def share(self) -> float | None:
        """Of the larger of two numbers."""
        numbers = [one for one in (self.here, self.there) if isinstance(one, (int, float))]
        return abs(numbers[0] - numbers[1]) / (max(map(abs, numbers)) or 1.0) if len(numbers) == 2 else None


Rows = Iterable[Mapping[str, Any]]


def first_difference(here: Rows, there: Rows, *, within: float = 0.0) -> tuple[Difference | None, int]:
    """The first step where two runs part, and how many rows of steps and evaluations they were compared in.

    Steps and values that only one of them has are no difference: one may have gone further. `within`: share of a value.
    """
    mine, other = _by_place(here), _by_place(there)
    compared = sorted(mine.keys() & other.keys())
    for place in compared:
        left, right = dict(_leaves(mine[place])), dict(_leaves(other[place]))
        for value in [value for value in left if value in right]:
            found = Difference(step=place[0], kind=place[1], value=value, here=left[value], there=right[value])
            if left[value] != right[value] and not _near(found, within):
                return found, len(compared)
    return None, len(compared)


def _near(found: Difference, within: float) -> bool:
    if found.share is None:
        return within > 0  # words follow from numbers
    return math.isfinite(found.share) and found.share <= within


def _by_place(rows: Rows) -> dict[tuple[int, str], Mapping[str, Any]]:
    """A step that was trained again after a cut counts as it was at last."""
    return {(int(row["step"]), row["kind"]): row for row in rows if row.get("kind") in ("step", "evaluation")}


def _leaves(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if before or key not in INCIDENTAL:
            if isinstance(value, Mapping):
                yield from _leaves(value, f"{before}{key}.")
            else:
                yield f"{before}{key}", value
