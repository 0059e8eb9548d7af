"""Whether the store is still what this home knows: seen before anything counts as durable, said when it is not."""

from __future__ import annotations

from runner.context import Now
from runner.errors import Fenced, RunnerError, StoreLost, StoreUnavailable
from runner.queue import checkpoints
from runner.queue.ledger import add_event
from runner.queue.rows import Checkpoint
from runner.queue.view import see
from runner.screen.daemon_note import LostNote, read_lost, write_lost
from runner.store.known import ROOT
from runner.store.log import Log
from runner.store.presence import check_objects, check_root, check_tail, check_walk, missing
from runner.store.publish import committed
from runner.store.records import newest_commit
from runner.store.root import jobs as entries_of
from runner.sync.job_in_store import JobInStore, SyncContext
from runner.sync.opening import open_job_log
from wake2vec.contract.manifest import saved_steps

CHECK_SECONDS = 60.0
CHECK_DONE_SECONDS = 3600.0  # of a job that is over, where every look is a call over a network
LOST_SECONDS = 10.0
WALK_SECONDS = 600.0


def look(context: SyncContext, now: Now) -> None:
    """At the root: once a minute, and more often while it is lost. A store that does not answer is no news of it."""
    if now.monotonic - context.looked_at < (LOST_SECONDS if ROOT in context.daemon.lost else CHECK_SECONDS):
        return
    context.looked_at = now.monotonic
    try:
        check(context, now)
    except StoreUnavailable:
        return


def check(context: SyncContext, now: Now, *, tail: bool = True) -> Log:
    """The root log, seen to be the one that this home knows. Raises StoreLost, having said so, and StoreUnavailable."""
    try:
        root = context.root_log()
        check_root(root, tail=tail)
        root.refresh()
    except StoreLost as error:
        distrust(context, ROOT, error, now)
        raise
    context.known.keep(root)
    trust(context, ROOT, now)
    return root


def is_due(stored: JobInStore, now: Now) -> bool:
    remote = stored.store.properties.remote
    every = CHECK_DONE_SECONDS if remote and stored.is_done else CHECK_SECONDS
    return stored.job in stored.context.daemon.lost or now.monotonic - stored.confirmed_at >= every


def confirm(stored: JobInStore, now: Now, *, fully: bool = False, is_sent: bool = False) -> None:
    """See that a home which knows nothing but the store finds this log to its end, and every object that it needs.

    Reading the whole chain anew costs a call a record: over a network that is done every ten minutes, and `fully`. Of a
    checkpoint that `is_sent` the objects have just been seen, and those that stay are looked at every minute: there the
    store's first record and the end of both logs are what can have changed.
    Raises StoreLost, StoreUnavailable, and Fenced when another home has written the log anew.
    """
    remote, is_known = stored.store.properties.remote, stored.job not in stored.context.daemon.lost
    is_quick = is_sent and remote and is_known and now.monotonic - stored.confirmed_at < CHECK_SECONDS
    root = check(stored.context, now, tail=not is_quick)
    entry = entries_of(root.records).get(stored.job)
    if entry is not None and entry.job.genesis_id != stored.log.first_id:
        stored.context.opened.pop(stored.job, None)
        raise Fenced(f"{stored.job}: {entry.holder} has written its log in the store anew; it is taken up from there")
    check_tail(stored.log, f"the newest record of {stored.job}")
    if is_quick:
        stored.context.known.keep(stored.log)
        return
    patience = WALK_SECONDS if remote else 0.0
    if fully or now.monotonic - stored.walked_at >= patience:
        check_walk(root, stored.job, stored.log)
        stored.walked_at = now.monotonic
    check_objects(stored.log)
    _see_checkpoints(stored, now)
    stored.context.known.keep(stored.log)
    stored.confirmed_at = now.monotonic
    trust(stored.context, stored.job, now)


def _see_checkpoints(stored: JobInStore, now: Now) -> None:
    """The newest durable checkpoint is there. One that is not does not count any more: it is brought there again where
    it lies here, and the one before it counts where it does not. What another home pruned behind its own is no loss."""
    queue, job = stored.queue, stored.job
    rows = [row for row in checkpoints.list_checkpoints(queue, job) if row.durable_at is not None]
    for row in reversed(rows):
        record = committed(stored.records, row.manifest_sha256)
        gone = {} if record is None else missing(stored.store, record)
        if not gone:
            return
        checkpoints.mark_gone_from_store(queue, job, row.step)
        if _was_passed(stored, rows):
            continue
        here = "it is brought there again" if row.saved_at is not None else "it is not on this machine either"
        stored.tell(now, "lost", f"checkpoint {row.step} in the store has lost {', '.join(gone)}; {here}")


def _was_passed(stored: JobInStore, rows: list[Checkpoint]) -> bool:
    """Whether another home has brought a newer checkpoint, and it is there."""
    stored.log.refresh()
    newest = newest_commit(stored.records)
    is_ours = newest is None or newest.commit.manifest.sha256 in {row.manifest_sha256 for row in rows}
    return newest is not None and not is_ours and not missing(stored.store, newest)


def distrust(context: SyncContext, job: str, error: StoreLost, now: Now) -> None:
    """Say it once; from here on nothing of the job, or of any, counts as durable."""
    daemon = context.daemon
    if job not in daemon.lost:
        add_event(daemon.queue, now.wall, "lost", f"{error}. {holdings(context, job)}", job=job or None)
    daemon.lost[job] = error
    others = [note for note in read_lost(daemon.settings.home) if note.job != job]
    note = LostNote(job=job, loss=error.loss, problem=error.problem, remedy=error.remedy, since_at=now.wall)
    write_lost(daemon.settings.home, [*others, note])


def trust(context: SyncContext, job: str, now: Now) -> None:
    """It is there, or there again."""
    daemon = context.daemon
    if daemon.lost.pop(job, None) is not None:
        said = f"{daemon.store.properties.place}: {job or 'the store'} is there again; what waited goes on"
        add_event(daemon.queue, now.wall, "found", said, job=job or None)
        context.retry_at.clear()
    notes = read_lost(daemon.settings.home)
    if any(note.job == job for note in notes):
        write_lost(daemon.settings.home, [note for note in notes if note.job != job])


def holdings(context: SyncContext, job: str) -> str:
    """What this home still has, in words."""
    names = [one.name for one in see(context.queue).mine if job in (ROOT, one.name)]
    steps = {name: max(saved_steps(context.run(name)), default=None) for name in names}
    told = [f"{name} {'without a checkpoint' if step is None else f'at step {step}'}" for name, step in steps.items()]
    return f"This home holds {', '.join(told[:8])}" if told else "This home holds no job"


def unconfirmed(context: SyncContext, now: Now) -> dict[str, str]:
    """Look once more at every job of which something is claimed; by job, why it could not be seen. Losses are noted."""
    found: dict[str, str] = {}
    away = context.store_trouble()
    for job in see(context.queue).mine:
        state = checkpoints.log_state(context.queue, job.name)
        if state.done_at is None and checkpoints.durable_step(context.queue, job.name) is None:
            continue
        if away is not None:  # asked again and again already
            found[job.name] = away.said
            continue
        try:
            stored = open_job_log(context, job, now)
            if state.done_at is None or is_due(stored, now) or not context.store.properties.remote:
                confirm(stored, now, fully=True)
        except StoreLost as error:
            if ROOT not in context.daemon.lost:
                distrust(context, job.name, error, now)
            found[job.name] = error.problem
        except (RunnerError, OSError) as error:
            found[job.name] = str(error)
    return found
