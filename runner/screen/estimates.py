"""What the figures of a job mean: how much a cut costs, how long it still takes, whether it learns. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from runner.figures import finite
from runner.queue.rows import Evaluation, Metric
from wake2vec.contract.files import counted
from wake2vec.contract.ledger import best as best_evaluation

RECENT = 50  # steps that say how fast it is now
TREND = 5  # evaluations that say where it is going


def at_risk_seconds(metrics: Sequence[Metric], trained: int, kept: int, seconds_per_step: float | None) -> float:
    """Work that would have to be repeated if everything after step `kept` were lost now."""
    known = [metric for metric in metrics if metric.step > kept and metric.step <= trained]
    unknown = max(0, trained - kept - len(known))
    return sum(metric.seconds or 0.0 for metric in known) + unknown * (seconds_per_step or 0.0)


def recent_seconds_per_step(metrics: Sequence[Metric]) -> float | None:
    """The median, because one step that waits for a checkpoint says nothing about the next."""
    seconds = [metric.seconds for metric in metrics[-RECENT:] if metric.seconds is not None]
    return statistics.median(seconds) if seconds else None


def remaining_seconds(
    trained: int,
    steps: int | None,
    seconds_per_step: float | None,
    evaluations: Sequence[Evaluation],
    evaluate_every: int,
) -> float | None:
    """Steps and evaluations that are still to come, at their recent speed."""
    if steps is None or seconds_per_step is None:
        return None
    times = [one.seconds for one in evaluations if one.seconds is not None]
    still = len([step for step in range(evaluate_every, steps, evaluate_every) if step > trained]) + (trained < steps)
    return max(0, steps - trained) * seconds_per_step + (still * statistics.median(times) if times else 0.0)


def remaining_sessions(seconds: float | None, session_minutes: float | None) -> int | None:
    """None where nobody knows how long sessions last here."""
    if seconds is None or not session_minutes:
        return None
    return max(1, math.ceil(seconds / 60 / session_minutes)) if seconds > 0 else 0


Learns = tuple[bool | None, str]  # None: it cannot be said; and the evidence, in one line


def learning(evaluations: Sequence[Evaluation], metrics: Sequence[Metric]) -> Learns:
    norms = finite([metric.grad_norm for metric in metrics[-RECENT:]])
    if len(norms) >= 5 and max(norms) == 0.0:
        return False, "not learning: every gradient is zero"
    best = best_evaluation(evaluations)
    if best is None or best.loss is None or len(evaluations) < 2:
        return _by_training_loss(metrics)
    since = [one for one in evaluations if one.step > best.step]
    if since:
        return False, f"no new best for {counted(len(since), 'evaluation')}"
    measured = [one.loss for one in evaluations[-TREND:] if one.loss is not None and math.isfinite(one.loss)]
    if len(measured) < 2:
        return _by_training_loss(metrics)
    fall = measured[0] - measured[-1]
    if fall < 1e-3 * abs(measured[0]):
        return None, f"flat: {fall:.4f} nats in {len(measured) - 1} evaluations"
    return True, f"learning: down {fall:.2f} nats in {counted(len(measured) - 1, 'evaluation')}"


def _by_training_loss(metrics: Sequence[Metric]) -> Learns:
    losses = finite([metric.loss for metric in metrics])
    if len(losses) < 20:
        return None, "too early to say whether it learns"
    part = len(losses) // 4
    fall = statistics.fmean(losses[:part]) - statistics.fmean(losses[-part:])
    if abs(fall) < 0.005:
        return False, "not learning yet: training loss flat"
    if fall > 0:
        return True, f"learning: training loss down {fall:.2f} nats"
    return False, f"not learning yet: training loss up {-fall:.2f} nats"


def next_multiple(step: int, every: int, last: int | None) -> int | None:
    """The next step at which something happens that comes every `every` steps, and at the last one."""
    following = (step // every + 1) * every
    if last is None:
        return following
    return min(following, last) if step < last else None
