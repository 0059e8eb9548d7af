"""What a job's state asks of its log: to hold it while it runs, to say in it how it rests, to close it at its end."""

from __future__ import annotations

import shutil

from runner.context import Now
from runner.errors import Fenced, StoreFull
from runner.queue import checkpoints
from runner.queue.rows import Job, LogState
from runner.queue.view import see
from runner.states import State
from runner.store.presence import missing
from runner.store.records import StateNote, commits, is_released, lease, newest_commit
from runner.sync.job_in_store import JobInStore, SyncContext
from runner.sync.page import publish_page
from runner.sync.prepare import final_files, is_whole
from runner.sync.prune import prune
from runner.sync.trust import confirm
from runner.sync.upload import finish, is_settled, publish_regimes, publish_saved, publish_vocabulary

IDLE_LEASE_SECONDS = 10.0
TOLD_IN_THE_LOG = (State.HELD, State.FAILED, State.CANCELLED)


def hold(stored: JobInStore, now: Now) -> bool:
    """Have the lease; False when another home has it stand otherwise, or when it is done, all of it seen."""
    if stored.lease is None and stored.hear(now):
        return False
    if stored.hold(now):
        return True
    confirm(stored, now, fully=True)
    newest, run = newest_commit(stored.records), stored.run
    if newest is not None and not missing(stored.store, newest):
        stored.mark_durable(newest.commit, now)
    if run.final.is_dir() and not is_whole(run.root, final_files(stored)):
        shutil.rmtree(run.final)  # of an end before this one
    stored.set_state(now, done_at=now.wall, **checkpoints.SOUND)
    return False


def keep_running(stored: JobInStore, job: Job, now: Now) -> None:
    fresh = stored.lease is None
    if not hold(stored, now):
        return
    if fresh:
        _see_whether_it_was_passed(stored, job, now)
        if stored.context.sight.view.by_name[job.name].finishing != job.finishing:
            return  # another home has given it more steps
    publish(stored, job, now)
    publish_page(stored, now)
    prune(stored, job)
    if job.finishing and job.wish is None:
        finish(stored, job, now)


def _see_whether_it_was_passed(stored: JobInStore, job: Job, now: Now) -> None:
    """A job that went on while the store was away may find that another runner did so too, and was faster."""
    foreign = [one for one in commits(stored.records) if one.holder != stored.context.daemon.holder]
    known = {one.manifest_sha256 for one in stored.context.sight.view.checkpoints(job.name)}
    if foreign and foreign[-1] is newest_commit(stored.records) and foreign[-1].commit.manifest.sha256 not in known:
        stored.give_back(now)
        raise Fenced(f"{job.name}: {foreign[-1].holder} has gone on with this job; it is taken up from there")


def rest(stored: JobInStore, job: Job, now: Now) -> None:
    """Nothing of the job runs: bring what it saved to the store, say in the log how it stands, give the lease back."""
    daemon = stored.context.daemon
    if job.state is State.QUEUED:
        if stored.lease is not None and not daemon.handover.holds(job.name):
            publish(stored, job, now)
            stored.beat(now)
            if now.monotonic - stored.used_at > IDLE_LEASE_SECONDS or daemon.is_stopping:
                stored.give_back(now)
        return
    daemon.handover.take(job.name)
    if (stored.lease is None and stored.rested_at == job.changed_at) or stored.is_done:
        return
    if stored.lease is None and stored.hear(now):
        return
    if _says_all(stored, job):
        stored.rested_at = job.changed_at
        return
    if hold(stored, now):
        publish(stored, job, now)
        if job.state is State.SUCCEEDED:  # the log that said so is gone, and begun anew
            finish(stored, job, now)
            return
        if state_in_log(stored) != job.state and job.state in TOLD_IN_THE_LOG:
            stored.note(StateNote(state=str(job.state), reason=job.reason, remedy=job.remedy))
        stored.give_back(now)
        stored.rested_at = job.changed_at


def _says_all(stored: JobInStore, job: Job) -> bool:
    """Whether the log knows of a resting job all that there is, and is free: the lease is not taken for nothing."""
    is_free = stored.lease is None and (lease(stored.records) is None or is_released(stored.records))
    is_changed = any(one.job == job.name for one in stored.context.sight.view.regimes)
    return is_free and state_in_log(stored) == job.state and not is_changed and is_settled(stored.context, job)


def untold(context: SyncContext) -> list[str]:
    """Jobs whose log does not say yet how they stand, where nothing is known to keep it from that."""
    view = see(context.queue)
    return [job.name for job in view.mine if not _is_told(context, job, view.log(job.name))]


def _is_told(context: SyncContext, job: Job, log: LogState) -> bool:
    """One that waits, runs or has no log need not; nor one that is done."""
    if job.state not in TOLD_IN_THE_LOG or log.created_at is None or log.done_at is not None:
        return True
    stored = context.opened.get(job.name)
    is_told = stored is not None and (stored.is_done or stored.rested_at == job.changed_at)
    return is_told or context.trouble_of(job.name) is not None


def publish(stored: JobInStore, job: Job, now: Now) -> None:
    publish_vocabulary(stored, job)
    publish_regimes(stored, job, now)
    try:
        publish_saved(stored, job, now)
    except StoreFull:  # what nothing needs any more may be all that is in the way
        prune(stored, job)
        stored.sweep(now)
        publish_saved(stored, job, now)


def state_in_log(stored: JobInStore) -> str:
    """What was told last; nothing for a job that is queued or runs."""
    told = stored.noted(StateNote)
    return told.state if told else ""
