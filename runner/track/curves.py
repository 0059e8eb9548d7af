"""What of a job's ledger becomes a tracker's curves, and which points of them one has not seen yet. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from runner.queue.rows import Evaluation, Metric

TRAIN, EVALUATION = "train", "eval"
NO_CURVE = frozenset({"job", "step", "checkpoint"})


@dataclass(frozen=True, kw_only=True)
class Reached:
    """The last step of each kind of row that a tracker holds."""

    train: int = -1
    evaluation: int = -1


@dataclass(frozen=True, kw_only=True)
class Point:
    """One row: figures by the name of their curve, such as `eval/bits_per_byte`."""

    step: int
    figures: Mapping[str, float]


def points(metrics: Sequence[Metric], evaluations: Sequence[Evaluation], reached: Reached) -> Iterator[Point]:
    """By step, each row that lies beyond what the tracker holds. A step taken again after a cut gives the same figures,
    so the first telling of it stands."""
    rows = [(row.step, 0, TRAIN, asdict(row)) for row in metrics if row.step > reached.train]
    rows += [(row.step, 1, EVALUATION, asdict(row)) for row in evaluations if row.step > reached.evaluation]
    for step, _, kind, row in sorted(rows, key=lambda one: one[:2]):
        if figures := _figures(kind, row):
            yield Point(step=step, figures=figures)


def reached_by(names: Mapping[str, int]) -> Reached:
    """Out of the last step of every curve that a tracker holds."""
    last = {TRAIN: -1, EVALUATION: -1}
    for name, step in names.items():
        kind = name.partition("/")[0]
        if kind in last:
            last[kind] = max(last[kind], step)
    return Reached(train=last[TRAIN], evaluation=last[EVALUATION])


def _figures(kind: str, row: Mapping[str, Any]) -> dict[str, float]:
    """What is no finite number is left out: a tracker would draw it as 0, or refuse the row."""
    return {
        f"{kind}/{name}": float(value)
        for name, value in row.items()
        if name not in NO_CURVE and isinstance(value, int | float) and math.isfinite(value)
    }
