"""Make the queue's rows from what is in the store: for a new machine, or in place of a database that was corrupt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from runner.context import Now
from runner.errors import Damaged, NotStored
from runner.intake import import_new_lines, promote
from runner.queue import checkpoints, jobs
from runner.queue.attempts import add_past_sessions, list_attempts
from runner.queue.changing import follow, unknown_changes
from runner.queue.checkpoints import log_state
from runner.queue.database import Line, stand_in
from runner.queue.history import is_new
from runner.queue.ledger import add_event, list_regimes
from runner.queue.rows import Job
from runner.retention import KEPT_LAST
from runner.states import State
from runner.store.base import Store
from runner.store.log import Log
from runner.store.publish import fetch_files
from runner.store.records import QuarantineNote, Record, StateNote, commits, is_done, notes, regimes
from runner.store.root import jobs as entries_of
from runner.store.root import open_job
from runner.sync.copies import bring_history, scratch, sound_copies
from runner.sync.job_in_store import JobInStore, SyncContext
from wake2vec.contract.spec import JOB_SPEC

PUT_BACK = "`wake2vec-runner repair` on the home that trained it puts it back, and its name can be used again"
# Small enough to bring at once, and what `status` and `log` of a finished job need.
SMALL_FOLDERS = ("logs/", "eval/")


def restore(context: SyncContext, now: Now, say: Callable[[str], None]) -> list[str]:
    """Add the jobs that the store knows and the queue does not; returns their names. Raises StoreUnavailable.

    The logs say what there is. A home without a past gets the history of the home before it on top.
    """
    if context.queue.is_shared:
        with context.queue.write() as connection:  # homes that start at the same time do it one after the other
            stand_in(Line.RESTORE, connection)
            return rebuild(context, now, say)
    if not is_new(context.queue):
        return rebuild(context, now, say)
    with scratch(context) as folder:
        copies = sound_copies(context, folder, now, say)
        newest = next(copies, None)  # before the first row: a store that goes away now leaves the home a new one
        logs = _rebuild_jobs(context, now, say)
        lives = past_sessions([log.records for log in logs.values()])
        if logs and newest:
            bring_history(context, chain([newest], copies), logs, lives, now, say)
    _remember(context, lives)
    return list(logs)


def rebuild(context: SyncContext, now: Now, say: Callable[[str], None]) -> list[str]:
    """The same from the logs alone, for a person who trusts nothing else."""
    logs = _rebuild_jobs(context, now, say)
    _remember(context, past_sessions([log.records for log in logs.values()]))
    return list(logs)


def _rebuild_jobs(context: SyncContext, now: Now, say: Callable[[str], None]) -> dict[str, Log]:
    root = context.root_log()
    root.refresh()
    entries = entries_of(root.records)
    known = {job.name for job in jobs.list_jobs(context.queue) if not _is_only_queued(context, job, entries)}
    new = {name: entry for name, entry in entries.items() if name not in known}
    again = {job.name for job in jobs.list_jobs(context.queue)} & new.keys()
    for number, (name, entry) in enumerate(new.items(), start=1):
        say(f"restoring {name} from {context.store.properties.place} ({number} of {len(new)})")
        try:
            log = open_job(root, entry)
            if name in again:
                jobs.forget(context.queue, name)
            _add(context, name, log, now)
        except (Damaged, NotStored, ValueError, KeyError, TypeError) as error:
            is_there = context.store.stat(entry.job.genesis_id) is not None
            why = str(error) if is_there else f"its folder was deleted there; {PUT_BACK}"
            add_event(context.queue, now.wall, "corrupt", f"{name}: its log in the store cannot be read: {why}")
            say(f"{name}: its log in the store cannot be read and is left alone: {why}")
            context.daemon.unread[name] = why
    return {name: context.opened[name].log for name in new if name in context.opened}


def _is_only_queued(context: SyncContext, job: Job, entries: Mapping[str, Record]) -> bool:
    """Whether a person queued here, on a new machine, what the store has already: then the store knows more of it."""
    entry = entries.get(job.name)
    if entry is None or entry.job.fingerprint != job.fingerprint:
        return False
    queue = context.queue
    touched = (
        job.state is not State.QUEUED or job.wish is not None or list_regimes(queue, job.name)
    )  # by hold, set, ...
    return not touched and log_state(queue, job.name).created_at is None and not list_attempts(queue, job.name)


def _remember(context: SyncContext, lives: dict[str, tuple[float, float]]) -> None:
    lives.pop(context.daemon.holder, None)
    add_past_sessions(context.queue, lives)


def past_sessions(logs: Sequence[Sequence[Record]]) -> dict[str, tuple[float, float]]:
    """When each runner took its first lease and wrote its last record: how long machines live, for the cadence."""
    lives: dict[str, tuple[float, float]] = {}
    for record in (record for records in logs for record in records):
        if record.kind == "LEASE" or record.holder in lives:
            begin, end = lives.get(record.holder, (record.written_at, record.written_at))
            lives[record.holder] = (min(begin, record.written_at), max(end, record.written_at))
    return lives


def _add(context: SyncContext, name: str, log: Log, now: Now) -> None:
    queue = context.queue
    origin = log.records[0].genesis
    stored = JobInStore(context=context, job=name, log=log)
    told = stored.noted(StateNote) or StateNote()
    state = State(told.state) if told.state else State.QUEUED
    jobs.add_job(
        queue,
        JOB_SPEC.validate_python(origin.job),
        origin.inputs,
        origin.fingerprint,
        now.wall,
        state=State.QUEUED if is_done(log.records) else state,
        reason=told.reason,
        remedy=told.remedy,
        again=True,
    )
    context.opened[name] = stored
    context.known.keep(log)  # what other homes say from here on is news
    for change in unknown_changes(queue, name, [record.payload for record in regimes(log.records)]):
        follow(queue, name, change, now.wall)
    quarantined = {one.manifest_sha256 for one in notes(log.records, QuarantineNote)}
    for record in still_stored(context.store, log):
        stored.mark_durable(record.commit, now._replace(wall=record.written_at))
        if record.commit.manifest.sha256 in quarantined:
            checkpoints.quarantine(queue, name, record.commit.step)
    stored.set_state(now, created_at=log.records[0].written_at)
    if is_done(log.records):
        _add_results(stored, now)
    add_event(queue, now.wall, "restored", f"{name}: restored from {context.store.properties.place}", job=name)


def still_stored(store: Store, log: Log) -> list[Record]:
    """The commits whose manifest is still there: the retention deletes objects, never records.

    One listing, since a long job has hundreds of commits; the newest are asked for by id, since a listing may lag.
    """
    found = commits(log.records)
    listed = {stat.id for stat in store.find(f"{log.name}/checkpoints")}
    sure = {id for one in found[-KEPT_LAST:] if store.stat(id := one.commit.manifest.id) is not None}
    return [one for one in found if one.commit.manifest.id in listed | sure]


def _add_results(stored: JobInStore, now: Now) -> None:
    """A finished job gets its ledger and its tables back; its weights stay in the store until they are wanted."""
    daemon, done = stored.context.daemon, stored.records[-1].done
    small = {name: file for name, file in done.files.items() if name.startswith(SMALL_FOLDERS)}
    fetch_files(daemon.store, small, stored.run.root)
    import_new_lines(daemon, stored.job, now.wall)
    jobs.set_steps(daemon.queue, stored.job, done.step)
    jobs.end_at(daemon.queue, stored.job, done.step)
    stored.set_state(now, done_at=stored.records[-1].written_at)
    promote(daemon, jobs.get_job(daemon.queue, stored.job), now.wall)
