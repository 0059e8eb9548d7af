"""Whether the store is still what this home knows: seen before anything counts as durable, said when it is not."""

from __future__ import annotations

from runner.errors import Fenced, RunnerError, StoreLost, StoreUnavailable
from runner.queue import checkpoints, jobs
from runner.queue.ledger import add_event
from runner.screen.daemon_note import LostNote, read_lost, write_lost
from runner.store.known import ROOT
from runner.store.log import Log
from runner.store.presence import check_objects, check_root, check_tail, check_walk, missing
from runner.store.publish import committed
from runner.store.records import is_done
from runner.store.root import jobs as entries_of
from runner.sync.job_in_store import Care, Keeper, keeper_of
from wake2vec.contract.manifest import saved_steps

CHECK_SECONDS = 60.0
CHECK_DONE_SECONDS = 3600.0  # of a job that is over, where every look is a call over a network
LOST_SECONDS = 10.0
WALK_SECONDS = 600.0


def look(care: Care, now: float, monotonic: float) -> None:
    """At the root: once a minute, and more often while it is lost. A store that does not answer is no news of it."""
    if monotonic - care.looked_at < (LOST_SECONDS if ROOT in care.work.lost else CHECK_SECONDS):
        return
    care.looked_at = monotonic
    try:
        check(care, now)
    except StoreUnavailable:
        return


def check(care: Care, now: float) -> Log:
    """The root log, seen to be the one that this home knows. Raises StoreLost, having said so, and StoreUnavailable."""
    try:
        root = care.root_log()
        check_root(root)
        root.refresh()
    except StoreLost as error:
        distrust(care, ROOT, error, now)
        raise
    care.known.keep(root)
    trust(care, ROOT, now)
    return root


def is_due(care: Care, keeper: Keeper, monotonic: float) -> bool:
    remote = care.work.store.properties.remote
    every = CHECK_DONE_SECONDS if remote and is_done(keeper.log.records) else CHECK_SECONDS
    return keeper.job in care.work.lost or monotonic - keeper.confirmed_at >= every


def confirm(care: Care, keeper: Keeper, now: float, monotonic: float, *, fully: bool = False) -> None:
    """See that a home which knows nothing but the store finds this log to its end, and every object that it needs.

    Reading the whole chain anew costs a call a record: over a network that is done every ten minutes, and `fully`.
    Raises StoreLost, StoreUnavailable, and Fenced when another home has written the log anew.
    """
    root = check(care, now)
    entry = entries_of(root.records).get(keeper.job)
    if entry is not None and entry.payload["genesis_id"] != keeper.log.first_id:
        care.keepers.pop(keeper.job, None)
        raise Fenced(f"{keeper.job}: {entry.holder} has written its log in the store anew; it is taken up from there")
    check_tail(keeper.log, f"the newest record of {keeper.job}")
    patience = WALK_SECONDS if care.work.store.properties.remote else 0.0
    if fully or monotonic - keeper.walked_at >= patience:
        check_walk(root, keeper.job, keeper.log)
        keeper.walked_at = monotonic
    check_objects(keeper.log)
    _see_checkpoints(care, keeper, now)
    care.known.keep(keeper.log)
    keeper.confirmed_at = monotonic
    trust(care, keeper.job, now)


def _see_checkpoints(care: Care, keeper: Keeper, now: float) -> None:
    """The newest durable checkpoint is there. One that is not does not count any more: it is brought there again where
    it lies here, and the one before it counts where it does not."""
    queue, job = care.work.queue, keeper.job
    rows = [row for row in checkpoints.list_checkpoints(queue, job) if row.durable_at is not None]
    for row in reversed(rows):
        record = committed(keeper.log.records, row.manifest_sha256)
        gone = {} if record is None else missing(care.work.store, record)
        if not gone:
            return
        checkpoints.mark_gone_from_store(queue, job, row.step)
        here = "it is brought there again" if row.saved_at is not None else "it is not on this machine either"
        text = f"{job}: checkpoint {row.step} in the store has lost {', '.join(gone)}; {here}"
        add_event(queue, now, "lost", text, job=job)


def distrust(care: Care, job: str, error: StoreLost, now: float) -> None:
    """Say it once; from here on nothing of the job, or of any, counts as durable."""
    work = care.work
    if job not in work.lost:
        add_event(work.queue, now, "lost", f"{error}. {holdings(care, job)}", job=job or None)
    work.lost[job] = error
    others = [note for note in read_lost(work.settings.home) if note.job != job]
    note = LostNote(job=job, loss=error.loss, problem=error.problem, remedy=error.remedy, since_at=now)
    write_lost(work.settings.home, [*others, note])


def trust(care: Care, job: str, now: float) -> None:
    """It is there, or there again."""
    work = care.work
    if work.lost.pop(job, None) is not None:
        said = f"{work.store.properties.place}: {job or 'the store'} is there again; what waited goes on"
        add_event(work.queue, now, "found", said, job=job or None)
        care.retry_at.clear()
    notes = read_lost(work.settings.home)
    if any(note.job == job for note in notes):
        write_lost(work.settings.home, [note for note in notes if note.job != job])


def holdings(care: Care, job: str) -> str:
    """What this home still has, in words."""
    names = [one.name for one in jobs.list_jobs(care.work.queue) if job in (ROOT, one.name)]
    steps = {name: max(saved_steps(care.work.run(name)), default=None) for name in names}
    told = [f"{name} {'without a checkpoint' if step is None else f'at step {step}'}" for name, step in steps.items()]
    return f"This home holds {', '.join(told[:8])}" if told else "This home holds no job"


def unconfirmed(care: Care, now: float, monotonic: float) -> dict[str, str]:
    """Look once more at every job of which something is claimed; by job, why it could not be seen. Losses are noted."""
    found: dict[str, str] = {}
    away = care.store_trouble()
    for job in jobs.list_jobs(care.work.queue):
        state = checkpoints.log_state(care.work.queue, job.name)
        if state.done_at is None and checkpoints.durable_step(care.work.queue, job.name) is None:
            continue
        if away is not None:  # asked again and again already
            found[job.name] = away.said
            continue
        try:
            keeper = keeper_of(care, job, now)
            if state.done_at is None or is_due(care, keeper, monotonic) or not care.work.store.properties.remote:
                confirm(care, keeper, now, monotonic, fully=True)
        except StoreLost as error:
            if ROOT not in care.work.lost:
                distrust(care, job.name, error, now)
            found[job.name] = error.problem
        except (RunnerError, OSError) as error:
            found[job.name] = str(error)
    return found
