"""The learning rate of a step: a pure function of the global step, so a resume cannot reset it. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from wake2vec.contract.tables import Extension, TrainTable

ScheduleKind = Literal["cosine", "linear", "constant"]


def learning_rate(step: int, *, peak: float, total: int, warmup_steps: int, kind: ScheduleKind) -> float:
    """Rate of global step `step` (from 0) of `total`.

    Equal to `get_{cosine,linear,constant}_schedule_with_warmup` of transformers, whose LambdaLR uses lambda(step) for
    the step numbered from 0: with warm-up the first step's rate is 0, and half a cosine ends just above 0.
    """
    if step < warmup_steps:
        return peak * step / max(1, warmup_steps)
    if kind == "constant":
        return peak
    progress = (step - warmup_steps) / max(1, total - warmup_steps)
    if kind == "linear":
        return peak * max(0.0, 1.0 - progress)
    return peak * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def rate_of(step: int, train: TrainTable, first_total: int) -> float:
    """As the job file says; `first_total` are the steps that it had before any extension."""
    return learning_rate(
        step,
        peak=train.lr,
        total=horizon(step, first_total, train.extended),
        warmup_steps=warmup_steps(train.warmup_steps, train.warmup_ratio, first_total),
        kind=train.schedule,
    )


def warmup_steps(steps: int | None, ratio: float, total: int) -> int:
    return steps if steps is not None else math.ceil(ratio * total)


def ends_before(first_total: int, extensions: Sequence[Extension]) -> set[int]:
    """Steps at which the job had come to an end, and went on because it was extended."""
    ends = [first_total, *(one.steps for one in extensions)]
    return {end for end, one in zip(ends, extensions, strict=False) if one.from_step >= end}


def horizon(step: int, first_total: int, extensions: Sequence[Extension]) -> int:
    """The number of steps that the rate of `step` follows: an extension changes only what comes after it was made."""
    return next((one.steps for one in reversed(extensions) if step >= one.from_step), first_total)
