"""Figures that follow from a ledger: train loss between evaluations, differences, running means. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from wake2vec.contract.ledger import EvaluationRow, Ledger, StepRow
from wake2vec.show.facts import SessionFact, session_of

Place = TypeVar("Place", int, float)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An evaluation beside what came before it. Losses in nats per token; None where there is nothing to compare."""

    row: EvaluationRow
    train: float | None  # mean over the tokens of the steps since the evaluation before
    change: float | None  # against the evaluation before
    gap: float | None  # held-out minus train
    to_best: float | None  # against the best so far, itself included: 0 is a new best
    is_best: bool
    session: int
    seconds_per_step: float | None


def measure(ledger: Ledger, sessions: tuple[SessionFact, ...] = ()) -> list[Measured]:
    """One line for each evaluation, oldest first."""
    lines: list[Measured] = []
    last: EvaluationRow | None = None
    lowest = math.inf
    for row in ledger.evaluations:
        since = [step for step in ledger.steps if (last.step if last else -1) < step.step <= row.step]
        train = mean_loss(since)
        is_best = row.loss < lowest  # NaN is never a best
        lowest = min(lowest, row.loss) if math.isfinite(row.loss) else lowest
        lines.append(
            Measured(
                row=row,
                train=train,
                change=row.loss - last.loss if last else None,
                gap=row.loss - train if train is not None else None,
                to_best=row.loss - lowest if math.isfinite(lowest) else None,
                is_best=is_best,
                session=session_of(row.step, sessions),
                seconds_per_step=mean_seconds(since),
            )
        )
        last = row
    return lines


def mean_loss(rows: Sequence[StepRow]) -> float | None:
    """Mean over tokens, not over steps; rows that are not finite are left out."""
    finite = [row for row in rows if math.isfinite(row.loss)]
    tokens = sum(row.tokens for row in finite)
    if not finite:
        return None
    if tokens == 0:
        return sum(row.loss for row in finite) / len(finite)
    return sum(row.loss * row.tokens for row in finite) / tokens


def mean_seconds(rows: Sequence[StepRow]) -> float | None:
    known = [row.seconds for row in rows if row.seconds is not None and math.isfinite(row.seconds)]
    return sum(known) / len(known) if known else None


def running_mean(points: Sequence[tuple[Place, float]], weight: float = 0.95) -> list[tuple[Place, float]]:
    """Exponential mean over (step, value), corrected for its start. Values that are not finite leave a gap."""
    smooth: list[tuple[Place, float]] = []
    mean = share = 0.0
    for place, value in points:
        if not math.isfinite(value):
            continue
        mean = weight * mean + (1 - weight) * value
        share = weight * share + (1 - weight)
        smooth.append((place, mean / share))
    return smooth


def perplexity(nats: float) -> float:
    """exp(nats), infinite where a double cannot hold it."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def thin(points: Sequence[tuple[Place, float]], most: int) -> list[tuple[Place, float]]:
    """At most about `most` points that keep each stretch's lowest and highest: a spike stays visible."""
    if len(points) <= most:
        return list(points)
    stretch = math.ceil(2 * len(points) / most)
    kept: list[tuple[Place, float]] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept.extend(sorted(ends))
    return kept
