"""Jobs and their segments: add, list, wish, and every change of state, each compare-and-set in one transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from runner.errors import IllegalTransition, JobExists, UnknownJob
from runner.jobfile.modelfolder import same_weights
from runner.queue import sharing
from runner.queue.database import Line, Queue, put, stand_in
from runner.queue.ledger import note
from runner.queue.rows import Job, Segment, row_of
from runner.queue.segments import close_segments, plan_ahead
from runner.queue.tables import attempts, events, files, jobs, keepers, logs, segments
from runner.states import Change, State, Wish, next_state
from wake2vec.contract.order import InputFile
from wake2vec.contract.spec import JobSpec


def add_job(
    queue: Queue,
    spec: JobSpec,
    inputs: Sequence[InputFile],
    fingerprint: str,
    now: float,
    *,
    state: State = State.QUEUED,
    reason: str = "",
    remedy: str = "",
    again: bool = False,
) -> Job:
    """Raises JobExists when the name is taken, or when the same work is queued under another name and not `again`."""
    with queue.write() as connection:
        _add(connection, spec, inputs, fingerprint, now, state=state, again=again, home=queue.home)
        connection.execute(update(jobs).where(jobs.c.name == spec.name).values(reason=reason, remedy=remedy))
        return fetch_job(connection, spec.name)


def add_jobs(
    queue: Queue,
    entries: Sequence[tuple[JobSpec, Sequence[InputFile], str]],
    now: float,
    *,
    again: bool = False,
    paths: Mapping[str, Path] | None = None,
) -> list[Job]:
    """Add every (spec, inputs, fingerprint) or, when one of them cannot be added, none; raises as add_job does.

    `paths`: of the job files, by job.
    """
    with queue.write() as connection:
        added = [
            _add(connection, spec, inputs, fingerprint, now, state=State.QUEUED, again=again, home=queue.home)
            for spec, inputs, fingerprint in entries
        ]
        for job, path in (paths or {}).items():
            put(connection, files, {"job": job, "path": str(path)})
        return added


def file_of(queue: Queue, job: str) -> str:
    """Where a person queued it from; what that file is called if it came from the store."""
    with queue.read() as connection:
        path = connection.execute(select(files.c.path).where(files.c.job == job)).scalar_one_or_none()
    return path or f"{job}.toml"


def _add(
    connection: Connection,
    spec: JobSpec,
    inputs: Sequence[InputFile],
    fingerprint: str,
    now: float,
    *,
    state: State,
    again: bool,
    home: str,
) -> Job:
    stand_in(Line.ADD, connection)
    _refuse_a_second(connection, spec, inputs, fingerprint, again=again)
    number = connection.execute(select(func.coalesce(func.max(jobs.c.number), 0) + 1)).scalar_one()
    steps = spec.steps if spec.phase == "command" else spec.train.steps if spec.train else None
    connection.execute(
        insert(jobs).values(
            name=spec.name,
            number=number,
            phase=spec.phase,
            state=state,
            priority=spec.runner.priority,
            after=spec.after,
            spec=spec.model_dump_json(),
            inputs=json.dumps([item.model_dump() for item in inputs]),
            fingerprint=fingerprint,
            steps=steps,
            created_at=now,
            changed_at=now,
        )
    )
    sharing.keep(connection, spec.name, home)
    if steps is not None:
        plan_ahead(connection, spec.name, steps, spec.checkpoint.every_steps)
    note(connection, now, "added", f"{spec.name}: added to the queue", job=spec.name)
    return fetch_job(connection, spec.name)


def _refuse_a_second(
    connection: Connection, spec: JobSpec, inputs: Sequence[InputFile], fingerprint: str, *, again: bool
) -> None:
    taken = connection.execute(select(jobs.c.state).where(jobs.c.name == spec.name)).scalar()
    if taken is not None:
        raise JobExists(f"{spec.name}: a job of that name is {taken}; give the file another name =, or see `status`")
    twins = connection.execute(
        select(jobs).where(
            jobs.c.fingerprint == fingerprint, jobs.c.after.is_not_distinct_from(spec.after), jobs.c.phase != "command"
        )
    )
    twin = next((job for row in twins if same_weights((job := row_of(Job, row._mapping)).inputs, inputs)), None)
    if twin is not None and not again:
        raise JobExists(f"{spec.name}: {twin.name} is the same work under another name; add --again to train it twice")


def forget(queue: Queue, name: str) -> None:
    """Remove a job that has never run here, with all its rows."""
    with queue.write() as connection:
        assert connection.execute(select(attempts.c.id).where(attempts.c.job == name)).first() is None, name
        for table in (segments, events, logs, keepers, files):
            connection.execute(delete(table).where(table.c.job == name))
        connection.execute(delete(jobs).where(jobs.c.name == name))


def get_job(queue: Queue, name: str) -> Job:
    """Raises UnknownJob."""
    with queue.read() as connection:
        return fetch_job(connection, name, to_change=False)


def list_jobs(queue: Queue) -> list[Job]:
    """Every job, in the order in which they came."""
    with queue.read() as connection:
        return [row_of(Job, row._mapping) for row in connection.execute(select(jobs).order_by(jobs.c.number))]


def list_segments(queue: Queue, name: str) -> list[Segment]:
    with queue.read() as connection:
        rows = connection.execute(select(segments).where(segments.c.job == name).order_by(segments.c.number))
        return [Segment(**row._mapping) for row in rows]


def set_steps(queue: Queue, name: str, steps: int) -> None:
    """Plan the segments of a job whose length its trainer has now told; nothing happens when it was known."""
    with queue.write() as connection:
        job = fetch_job(connection, name)
        if job.steps is None:
            connection.execute(update(jobs).where(jobs.c.name == name).values(steps=steps))
            plan_ahead(connection, name, steps, job.spec.checkpoint.every_steps)


def end_at(queue: Queue, name: str, step: int) -> None:
    """The job stopped early, at `step`: segments beyond it will never run, the one around it ends there."""
    with queue.write() as connection:
        own = segments.c.job == name
        connection.execute(segments.delete().where(own, segments.c.first_step >= step))
        connection.execute(update(segments).where(own, segments.c.last_step > step).values(last_step=step))
        close_segments(connection, name)


def change_state(queue: Queue, name: str, change: Change, now: float, **also: Any) -> Job:
    """Raises IllegalTransition when the table forbids it or somebody else was faster, UnknownJob."""
    with queue.write() as connection:
        return apply_change(connection, name, change, now, **also)


def apply_change(connection: Connection, name: str, change: Change, now: float, **also: Any) -> Job:
    """The same inside a transaction that does more. `also`: columns, of which reason and remedy are emptied else."""
    job = fetch_job(connection, name)
    try:
        target = next_state(job.state, change)
    except IllegalTransition as error:
        raise IllegalTransition(f"{name}: {error}") from None
    values = {"state": target, "changed_at": now, "reason": "", "remedy": "", "finishing": 0, **also}
    if target is not State.RUNNING:
        values |= {"wish": None, "end_now": 0}
    changed = connection.execute(update(jobs).where(jobs.c.name == name, jobs.c.state == job.state).values(values))
    if changed.rowcount != 1:
        raise IllegalTransition(f"{name}: changed by somebody else at the same moment; look at `status`")
    close_segments(connection, name)  # a daemon of 0.1.0 left this to its next tick
    reason = f": {values['reason']}" if values["reason"] else ""
    note(connection, now, str(change), f"{name}: {target}{reason}", job=name)
    return fetch_job(connection, name)


def set_wish(queue: Queue, name: str, wish: Wish, now: float, *, end_now: bool = False) -> Job:
    """Hold or cancel: at once where nothing runs, else when the trainer has saved and ended; with `end_now` unsaved.

    Raises IllegalTransition for a job that has ended already.
    """
    change = {Wish.HOLD: Change.HOLD, Wish.CANCEL: Change.CANCEL}[wish]
    with queue.write() as connection:
        job = fetch_job(connection, name)
        if wish is Wish.HOLD and job.state is State.HELD:
            return job
        if job.state is not State.RUNNING:
            return apply_change(connection, name, change, now, reason=f"{change} on request")
        connection.execute(update(jobs).where(jobs.c.name == name).values(wish=wish, end_now=int(end_now)))
        note(connection, now, "wish", f"{name}: {wish} was asked for", job=name)
        return fetch_job(connection, name)


def kill(queue: Queue, name: str, now: float) -> Job:
    """End the trainer now, without a checkpoint, and hold the job; `release` goes on from the newest checkpoint."""
    job = get_job(queue, name)
    if job.state is not State.RUNNING:
        remedy = "" if job.is_final else "; hold or cancel it instead"
        raise IllegalTransition(f"{name}: is {job.state}, nothing of it runs{remedy}")
    return set_wish(queue, name, Wish.HOLD, now, end_now=True)


def release(queue: Queue, name: str, now: float) -> Job:
    """Let a held job go on; a hold that was not carried out yet is taken back."""
    with queue.write() as connection:
        job = fetch_job(connection, name)
        if job.state is State.RUNNING and job.wish is Wish.HOLD and not job.end_now:
            connection.execute(update(jobs).where(jobs.c.name == name).values(wish=None))
            note(connection, now, "wish", f"{name}: the hold was taken back", job=name)
            return fetch_job(connection, name)
        return apply_change(connection, name, Change.RELEASE, now, not_before=0.0)


def retry(queue: Queue, name: str, now: float) -> Job:
    """Queue a failed or cancelled job again, with a fresh budget, from its newest checkpoint; ends a back-off too."""
    with queue.write() as connection:
        if fetch_job(connection, name).state is State.QUEUED:
            connection.execute(update(jobs).where(jobs.c.name == name).values(not_before=0.0, stalls=0))
            return fetch_job(connection, name)
        return apply_change(connection, name, Change.RETRY, now, not_before=0.0, stalls=0, rolled_back=0)


def update_job(queue: Queue, name: str, **values: Any) -> None:
    """Change columns other than the state; raises UnknownJob."""
    with queue.write() as connection:
        if connection.execute(update(jobs).where(jobs.c.name == name).values(values)).rowcount != 1:
            raise UnknownJob(f"{name}: there is no such job")


def replace_spec(connection: Connection, job: Job, spec: JobSpec, steps: int | None) -> None:
    """Freeze a changed spec and plan the segments that are not done anew."""
    connection.execute(segments.delete().where(segments.c.job == job.name, segments.c.done_at.is_(None)))
    connection.execute(
        update(jobs)
        .where(jobs.c.name == job.name)
        .values(spec=spec.model_dump_json(), steps=steps, priority=spec.runner.priority)
    )
    if steps is not None:
        plan_ahead(connection, job.name, steps, spec.checkpoint.every_steps)


def fetch_job(connection: Connection, name: str, *, to_change: bool = True) -> Job:
    """Raises UnknownJob, naming those that are known. `to_change`: nobody else changes it before this transaction."""
    wanted = select(jobs).where(jobs.c.name == name)
    row = connection.execute(wanted.with_for_update() if to_change else wanted).first()
    if row is None:
        known = [str(known) for known in connection.execute(select(jobs.c.name).order_by(jobs.c.number)).scalars()]
        listed = f"; known are {', '.join(known[:8])}" if known else "; the queue is empty"
        raise UnknownJob(f"{name}: there is no such job{listed}")
    return row_of(Job, row._mapping)
