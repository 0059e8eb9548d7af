"""Tell a job's life line by line: attempts, what their trainers printed, steps, evaluations, how each ended. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from runner import figures
from runner.queue.rows import Attempt, Evaluation, Metric


@dataclass(frozen=True, kw_only=True)
class Line:
    """One thing that happened; `key` is the same whenever it is told again."""

    job: str
    attempt: int | None
    step: int | None
    kind: str  # attempt, output, step, evaluation, end
    text: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Everything that is known of a job, oldest first."""

    job: str
    attempts: Sequence[Attempt]
    metrics: Sequence[Metric]
    evaluations: Sequence[Evaluation]
    printed: Sequence[tuple[int | None, str]]


def lines_of(timeline: Timeline) -> Iterator[Line]:
    """Attempt after attempt. Steps that a cut undid are not in the ledger, and so not here."""
    for place, attempt in enumerate(timeline.attempts):
        following = timeline.attempts[place + 1] if place + 1 < len(timeline.attempts) else None
        yield _line(timeline, attempt, None, "attempt", _began(attempt), "began")
        for number, (owner, text) in enumerate(timeline.printed):
            if owner == attempt.id:
                yield _line(timeline, attempt, None, "output", f"  {text}", f"output {number}")
        yield from _steps(timeline, attempt, following.first_step if following else None)
        if attempt.ended_at is not None:
            yield _line(timeline, attempt, attempt.last_step, "end", _ended(attempt), "ended")


def _steps(timeline: Timeline, attempt: Attempt, until: int | None) -> Iterator[Line]:
    def belongs(step: int) -> bool:
        return step > attempt.first_step and (until is None or step <= until)

    rows: list[Metric | Evaluation] = [row for row in timeline.metrics if belongs(row.step)]
    is_first = attempt is timeline.attempts[0]
    rows += [row for row in timeline.evaluations if belongs(row.step) or (is_first and row.step == 0)]
    for row in sorted(rows, key=lambda row: (row.step, isinstance(row, Evaluation))):
        if isinstance(row, Metric):
            yield _line(timeline, attempt, row.step, "step", _step(row), f"step {row.step}")
        else:
            yield _line(timeline, attempt, row.step, "evaluation", _evaluation(row), f"evaluation {row.step}")


def _line(timeline: Timeline, attempt: Attempt, step: int | None, kind: str, text: str, key: str) -> Line:
    return Line(job=timeline.job, attempt=attempt.id, step=step, kind=kind, text=text, key=f"{attempt.id} {key}")


def _began(attempt: Attempt) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(attempt.started_at))
    return f"attempt {attempt.id} at {when}, from step {attempt.first_step:,}"


def _step(row: Metric) -> str:
    parts = [f"step {row.step:,}", f"loss {figures.loss(row.loss)}"]
    parts += [f"lr {row.lr:.2e}"] if row.lr is not None else []
    parts += [f"gradient {row.grad_norm:.3g}"] if row.grad_norm is not None else []
    parts += [f"{row.seconds:.2f} s"] if row.seconds is not None else []
    return "  " + "  ".join(parts)


def _evaluation(row: Evaluation) -> str:
    parts = [f"held-out {figures.loss(row.loss)} nats"]
    parts += [f"{row.bits_per_byte:.3f} bits/byte"] if row.bits_per_byte is not None else []
    parts += [f"new words {figures.loss(row.new_loss)}"] if row.new_loss is not None else []
    parts += [row.checkpoint] if row.checkpoint else []
    return f"  evaluation at {row.step:,}: " + ", ".join(parts)


def _ended(attempt: Attempt) -> str:
    assert attempt.ended_at is not None
    lasted = figures.duration(attempt.ended_at - attempt.started_at)
    parts = [
        f"attempt {attempt.id} {attempt.outcome} at step {attempt.last_step or attempt.first_step:,} after {lasted}"
    ]
    parts += [attempt.cause] if attempt.cause else []
    parts += [attempt.remedy] if attempt.remedy else []
    return ": ".join(parts[:2]) + (f"; {parts[2]}" if len(parts) > 2 else "")


def last_lines(lines: Iterable[Line], attempt: int | None, count: int) -> list[Line]:
    """The last `count` lines (all with 0), of one attempt when it is named."""
    chosen = [line for line in lines if attempt is None or line.attempt == attempt]
    return chosen[-count:] if count else chosen
