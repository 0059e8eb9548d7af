"""Which checkpoints of a job are saved here and which are durable in the store, and how its log stands."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select, update

from runner.queue.database import Queue, put
from runner.queue.rows import Checkpoint, LogState, row_of
from runner.queue.segments import close_segments, durable_of
from runner.queue.tables import checkpoints, logs, segments

ALIVE = checkpoints.c.saved_at.is_not(None) | checkpoints.c.durable_at.is_not(None)


def list_checkpoints(queue: Queue, job: str) -> list[Checkpoint]:
    """Oldest first, without those that have left both places."""
    with queue.read() as connection:
        rows = connection.execute(
            select(checkpoints).where(checkpoints.c.job == job, ALIVE).order_by(checkpoints.c.step)
        )
        return [row_of(Checkpoint, row._mapping) for row in rows]


def durable_step(queue: Queue, job: str) -> int | None:
    """The step of the newest durable checkpoint."""
    with queue.read() as connection:
        found = connection.execute(durable_of(job).order_by(checkpoints.c.step.desc())).first()
        return found[0] if found else None


def mark_saved(queue: Queue, job: str, step: int, *, manifest_sha256: str, size: int, now: float) -> None:
    """A checkpoint lies in the run directory. Other bytes at the same step are another checkpoint: not durable yet."""
    with queue.write() as connection:
        row = {"job": job, "step": step, "manifest_sha256": manifest_sha256, "size": size, "saved_at": now}
        known = connection.execute(
            select(checkpoints.c.manifest_sha256).where(checkpoints.c.job == job, checkpoints.c.step == step)
        ).scalar()
        if known is not None and known != manifest_sha256:
            row |= {"durable_at": None, "quarantined": 0}
        put(connection, checkpoints, row)


def mark_gone_here(queue: Queue, job: str, step: int) -> None:
    _update(queue, job, step, saved_at=None)


def mark_durable(queue: Queue, job: str, step: int, *, manifest_sha256: str, size: int, now: float) -> None:
    with queue.write() as connection:
        row = {"job": job, "step": step, "manifest_sha256": manifest_sha256, "size": size, "durable_at": now}
        put(connection, checkpoints, row)
        close_segments(connection, job)


def mark_gone_from_store(queue: Queue, job: str, step: int) -> None:
    _update(queue, job, step, durable_at=None)


def quarantine(queue: Queue, job: str, step: int) -> None:
    """Never start from this checkpoint again; what it alone covered is to be done once more."""
    with queue.write() as connection:
        place = (checkpoints.c.job == job, checkpoints.c.step == step)
        connection.execute(update(checkpoints).where(*place).values(quarantined=1, saved_at=None))
        reached = select(func.coalesce(func.max(durable_of(job).subquery().c.step), 0)).scalar_subquery()
        beyond = (segments.c.job == job, segments.c.last_step > reached)
        connection.execute(update(segments).where(*beyond).values(done_at=None))


def _update(queue: Queue, job: str, step: int, **values: Any) -> None:
    with queue.write() as connection:
        place = (checkpoints.c.job == job, checkpoints.c.step == step)
        connection.execute(update(checkpoints).where(*place).values(values))


SOUND: dict[str, Any] = {"problem": "", "remedy": "", "fenced": False}  # a log that nothing keeps this home from


def log_state(queue: Queue, job: str) -> LogState:
    with queue.read() as connection:
        row = connection.execute(select(logs).where(logs.c.job == job)).first()
        return row_of(LogState, row._mapping) if row else LogState(job=job)


def set_log_state(queue: Queue, job: str, now: float, **values: Any) -> None:
    """Write what changed; nothing is written when all of it stands there already."""
    known = log_state(queue, job)
    if known.changed_at and all(getattr(known, name) == value for name, value in values.items()):
        return
    with queue.write() as connection:
        row = {"job": job, "changed_at": now, **values}
        put(connection, logs, row)
