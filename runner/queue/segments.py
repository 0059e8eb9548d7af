"""The rows of a job's segments: planned a thousand ahead, done when a durable checkpoint covers them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.sql import Select

from runner.queue.rows import Job, row_of
from runner.queue.tables import checkpoints, jobs, segments
from runner.states import PLANNED_AHEAD, plan_segments


def plan_ahead(connection: Connection, name: str, steps: int, every_steps: int) -> None:
    """Have rows for the next segments of a job, and no more of them, however long it is."""
    if _insert(connection, name, steps, every_steps):
        close_segments(connection, name)


def close_segments(connection: Connection, name: str) -> None:
    """A segment is done when a durable checkpoint covers it; then the next ones of a long job are planned."""
    newest = durable_of(name).order_by(checkpoints.c.step.desc()).limit(1).subquery()
    covered = (segments.c.job == name, segments.c.last_step <= select(newest.c.step).scalar_subquery())
    done_at = select(newest.c.durable_at).scalar_subquery()
    close = update(segments).where(*covered, segments.c.done_at.is_(None)).values(done_at=done_at)
    while connection.execute(close).rowcount and _goes_on(connection, name):
        job = row_of(Job, connection.execute(select(jobs).where(jobs.c.name == name)).one()._mapping)
        if job.steps is None or job.finishing or job.is_final:
            return
        if not _insert(connection, name, job.steps, job.spec.checkpoint.every_steps):
            return


def durable_of(name: str) -> Select[Any]:
    """Step and time of each durable checkpoint of a job."""
    of_job = (checkpoints.c.job == name, checkpoints.c.durable_at.is_not(None), checkpoints.c.quarantined == 0)
    return select(checkpoints.c.step, checkpoints.c.durable_at).where(*of_job)


def _goes_on(connection: Connection, name: str) -> bool:
    """Whether a job may be longer than its rows: a shorter one has all of them from the beginning."""
    count = select(func.count()).where(segments.c.job == name)
    return bool(connection.execute(count).scalar_one() >= PLANNED_AHEAD)


def _insert(connection: Connection, name: str, steps: int, every_steps: int) -> bool:
    own = segments.c.job == name
    last = select(segments.c.last_step, segments.c.number).where(own).order_by(segments.c.number.desc())
    start, after = connection.execute(last).first() or (0, 0)
    open_rows = connection.execute(select(func.count()).where(own, segments.c.done_at.is_(None))).scalar_one()
    planned = plan_segments(steps, every_steps, start=start, most=max(0, PLANNED_AHEAD - open_rows))
    rows = [
        {"job": name, "number": after + number, "first_step": first, "last_step": last}
        for number, (first, last) in enumerate(planned, start=1)
    ]
    if rows:
        connection.execute(insert(segments), rows)
    return bool(rows)
