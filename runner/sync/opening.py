"""A job's log in the store, opened as this home knows it, or begun."""

from __future__ import annotations

from runner.context import Now
from runner.errors import Damaged, Loss, StoreLost
from runner.queue import checkpoints
from runner.queue.rows import Checkpoint, Job
from runner.store.log import Log
from runner.store.names import log_name
from runner.store.presence import check_record
from runner.store.publish import forget, publish_files
from runner.store.records import Genesis, StoredFile, ends, is_done, manifests
from runner.store.root import add_job, open_job
from runner.store.root import jobs as entries_of
from runner.sync.job_in_store import JobInStore, SyncContext


def open_job_log(context: SyncContext, job: Job, now: Now) -> JobInStore:
    """The job's log, begun in the store with all that another machine needs to run the job."""
    found = context.opened.get(job.name)
    if found is None and (known := open_known(context, job)) is not None:
        found = context.opened[job.name] = JobInStore(context=context, job=job.name, log=known)
    if found is None:
        root = context.root_log()
        genesis = Genesis(
            job=job.spec.model_dump(mode="json"),
            fingerprint=job.fingerprint,
            inputs=job.inputs,
            stored_inputs=_publish_inputs(context, job),
            created_at=job.created_at,
        )
        log = add_job(root, job.name, genesis)
        for item in job.inputs:
            forget(context.journal, _input_folder(item.sha256))
        found = context.opened[job.name] = JobInStore(context=context, job=job.name, log=log)
        context.known.keep(log)
        found.set_state(now, created_at=log.records[0].written_at)
    return found


def open_known(context: SyncContext, job: Job) -> Log | None:
    """The job's log, not less than this home has seen of it; None when this home never brought the job there."""
    root, name = context.root_log(), log_name(job.name)
    copy, state = context.known.read(name), checkpoints.log_state(context.queue, job.name)
    if copy is None and state.created_at is None:
        return None
    root.refresh()
    entry, place = entries_of(root.records).get(job.name), context.store.properties.place
    if entry is None or context.store.stat(entry.job.genesis_id) is None:
        raise StoreLost(f"{place}: the log of {job.name} is gone: its folder was deleted there, or the store is older")
    try:
        log = open_job(root, entry)
    except Damaged as error:
        raise StoreLost(str(error), loss=Loss.TORN) from error
    if copy is not None and copy.records[0].nonce != log.records[0].nonce:
        match_rows(context, job.name, log)  # somebody wrote it anew
    elif copy is not None:
        what = f"record {copy.tail.seq} of the log of {job.name}"
        check_record(context.store, copy.tail_id, copy.tail.nonce, what)
    if unknown := beyond(context, job.name, log):
        text = f"{place}: the log of {job.name} ends before {', '.join(unknown)}: the store is older than this home"
        raise StoreLost(text, loss=Loss.OLDER)
    return log


def beyond(context: SyncContext, job: str, log: Log) -> list[str]:
    """What the queue counts as durable, or as done, and the log does not name."""
    is_over = checkpoints.log_state(context.queue, job).done_at and not ends(log.records)
    return [f"checkpoint {row.step}" for row in _unnamed(context, job, log)] or (["its end"] if is_over else [])


def _unnamed(context: SyncContext, job: str, log: Log) -> list[Checkpoint]:
    rows, named = checkpoints.list_checkpoints(context.queue, job), manifests(log.records)
    return [row for row in rows if row.durable_at is not None and row.manifest_sha256 not in named]


def match_rows(context: SyncContext, job: str, log: Log) -> None:
    """Have the queue count as durable, and as done, only what this log says."""
    for row in _unnamed(context, job, log):
        checkpoints.mark_gone_from_store(context.queue, job, row.step)
    first, last = log.records[0], log.records[-1]
    done_at = last.written_at if is_done(log.records) else None
    begun_at = first.written_at
    checkpoints.set_log_state(context.queue, job, begun_at, created_at=begun_at, done_at=done_at, **checkpoints.SOUND)


def _input_folder(sha256: str) -> str:
    return f"inputs/{sha256[:16]}"


def _publish_inputs(context: SyncContext, job: Job) -> dict[str, StoredFile]:
    """Store each text and word list once, whatever number of jobs share it; a model stays where it is."""
    copies = [copy for name in context.known.jobs() if (copy := context.known.read(log_name(name))) is not None]
    known = {
        sha256: file
        for records in [*(copy.records for copy in copies), *(stored.log.records for stored in context.opened.values())]
        for sha256, file in records[0].genesis.stored_inputs.items()
    }
    found: dict[str, StoredFile] = {}
    for item in job.inputs:
        path = context.daemon.settings.inputs / item.sha256
        if item.role == "model" or not path.is_file():
            continue
        folder, paths = _input_folder(item.sha256), {item.sha256: path}
        found |= publish_files(context.store, paths, folder=folder, known=known, journal=context.journal)
    return found


def lose(context: SyncContext, job: str, now: Now, reason: str) -> None:
    """Another runner has the job: forget the lease, and have the trainer stopped by the tick loop."""
    stored = context.opened.get(job)
    if stored is not None:
        stored.lease = None
    context.daemon.handover.take(job)
    remedy = "it goes on there; stop that runner first if this machine is to take the job"
    checkpoints.set_log_state(context.queue, job, now.wall, epoch=None, fenced=True, problem=reason, remedy=remedy)
