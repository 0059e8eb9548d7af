"""When a checkpoint is due: pure decisions about steps, minutes and known deadlines."""

from __future__ import annotations

import math
from dataclasses import dataclass

MIN_INTERVAL_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """What the decision depends on; times in seconds."""

    every_steps: int
    max_loss_seconds: float
    mean_session_seconds: float


def rolling_interval_seconds(cadence: Cadence, cost_seconds: float) -> float:
    """Young's interval √(2 · cost · mean session life), kept between a minute and the loss that the job allows.

    J. W. Young, "A first order approximation to the optimum checkpoint interval", CACM 17(9), 1974.
    """
    young = math.sqrt(2.0 * max(cost_seconds, 0.0) * cadence.mean_session_seconds)
    floor = min(MIN_INTERVAL_SECONDS, cadence.max_loss_seconds)
    return min(max(young, floor), cadence.max_loss_seconds)


def is_milestone(step: int, cadence: Cadence, last_step: int | None) -> bool:
    return step > 0 and (step % cadence.every_steps == 0 or step == last_step)


def rolling_is_due(seconds_since_saved: float, cost_seconds: float, cadence: Cadence) -> bool:
    return seconds_since_saved >= rolling_interval_seconds(cadence, cost_seconds)


def must_stop(seconds_left: float | None, step_seconds: float, save_seconds: float) -> bool:
    """Whether a known deadline leaves no room for one more step and its checkpoint, with half as much again in hand."""
    return seconds_left is not None and seconds_left < 1.5 * (step_seconds + save_seconds)
