"""One round of the sync loop: for every job, have its log, its lease, and in the store what is saved here."""

from __future__ import annotations

from contextlib import suppress

from runner.context import Now, Ready
from runner.errors import (
    Fenced,
    LeaseHeld,
    NeedsHelp,
    NotStored,
    QueueUnavailable,
    RunnerError,
    StoreBusy,
    StoreLost,
    StoreUnavailable,
)
from runner.queue import checkpoints, sharing
from runner.queue.ledger import add_event
from runner.queue.rows import Job
from runner.states import FINAL, State
from runner.store.known import ROOT
from runner.store.records import StateNote
from runner.sync.copies import mirror
from runner.sync.job_in_store import SyncContext
from runner.sync.mend import AGREED, repair_when_agreed
from runner.sync.opening import lose, open_job_log
from runner.sync.prepare import prepare
from runner.sync.prune import INPUTS_DAY_SECONDS, sweep_inputs
from runner.sync.standing import hold, keep_running, rest, state_in_log
from runner.sync.trust import LOST_SECONDS, check, confirm, distrust, is_due, look
from runner.sync.upload import publish_regimes
from runner.trouble import Trouble, cause_of, command_of
from wake2vec.contract.errors import CheckpointCorrupt
from wake2vec.contract.manifest import newest_verified

FIRST_RETRY_SECONDS = 2.0
LAST_RETRY_SECONDS = 120.0


def sync(context: SyncContext, now: Now) -> None:
    """Running jobs first, then those that tick wants to start, then the rest."""
    try:
        _round(context, now)
    except QueueUnavailable:  # nobody shall take this runner for dead meanwhile
        for stored in context.opened.values():
            with suppress(RunnerError):
                stored.beat(now)
        raise


def _round(context: SyncContext, now: Now) -> None:
    daemon = context.daemon
    if (context.home / AGREED).exists():
        repair_when_agreed(context, now, lambda text: add_event(daemon.queue, now.wall, "repaired", text))
    look(context, now)
    asked = daemon.handover.asked()
    view = context.sight.look()
    for name in [name for name, stored in context.opened.items() if stored.lease and not view.is_mine(name)]:
        context.opened.pop(name).leave()
    for job in sorted(view.mine, key=lambda job: _rank(job, asked)):
        if now.monotonic < context.retry_at.get(job.name, -1e9):
            _stay_alive(context, job, now)
        else:
            _guarded(context, job, now)
    if not daemon.lost:
        mirror(context, now)


def _rank(job: Job, asked: dict[str, int]) -> tuple[int, int]:
    if job.name in asked:
        return 1, asked[job.name]
    return {State.RUNNING: 0, State.QUEUED: 2}.get(job.state, 3), job.number


def _guarded(context: SyncContext, job: Job, now: Now) -> None:
    """Whatever keeps one job from the store is written down for that job, and does not hinder the others."""
    try:
        _look_after(context, job, now)
    except Fenced as error:
        context.troubles.pop(job.name, None)
        lose(context, job.name, now, str(error))
    except StoreLost as error:
        with suppress(StoreUnavailable):
            check(context, now)  # all of it, or only this job?
        if ROOT not in context.daemon.lost:
            distrust(context, job.name, error, now)
        if _may_train_without_store(context, job):
            context.daemon.handover.give(job.name, Ready())
        _wait(context, job, now, error, most=LOST_SECONDS)
    except StoreUnavailable as error:
        context.trouble_at = now.monotonic
        if _may_train_without_store(context, job):
            context.daemon.handover.give(job.name, Ready())
        _wait(context, job, now, error, most=LAST_RETRY_SECONDS)
    except QueueUnavailable:
        raise
    except NotStored as error:  # one thing is gone: all of it, perhaps
        with suppress(StoreUnavailable):
            check(context, now)
        _wait(context, job, now, context.daemon.lost.get(ROOT, error), most=LOST_SECONDS)
    except (RunnerError, CheckpointCorrupt) as error:
        if isinstance(error, NeedsHelp) and context.queue.is_shared:
            context.daemon.passed[job.name] = now.monotonic
            sharing.let_go(context.queue, [job.name])
        _wait(context, job, now, error, most=5.0 if isinstance(error, LeaseHeld) else LAST_RETRY_SECONDS)
    except OSError as error:
        _wait(context, job, now, error, most=30.0)
    else:
        context.troubles.pop(job.name, None)
        context.retry_at.pop(job.name, None)
        log = context.sight.view.log(job.name)
        if not log.fenced and (log.problem or log.remedy or not log.changed_at):
            checkpoints.set_log_state(context.queue, job.name, now.wall, problem="", remedy="")


def _stay_alive(context: SyncContext, job: Job, now: Now) -> None:
    """While a job's uploads wait, nobody shall take this runner for dead."""
    stored = context.opened.get(job.name)
    if stored is not None:
        try:
            stored.beat(now)
        except Fenced as error:
            lose(context, job.name, now, str(error))


def _wait(context: SyncContext, job: Job, now: Now, error: Exception, *, most: float) -> None:
    cause, before = cause_of(error), context.troubles.get(job.name)
    times = before.times if before is not None else 0
    asked = error.retry_after_seconds if isinstance(error, StoreBusy) else None
    pause = max(min(FIRST_RETRY_SECONDS * 2.0 ** min(times, 16), most), asked or 0.0)
    context.retry_at[job.name] = now.monotonic + pause
    said, command = str(error), command_of(error, cause, job.name)
    if isinstance(error, OSError):
        said = f"{error.filename or context.home}: {error.strerror}"
        command = f"make room on the disk of {context.home}, or see whether it can be written"
    context.troubles[job.name] = Trouble(
        job=job.name,
        cause=cause,
        said=said,
        command=command,
        since_at=before.since_at if before is not None and before.cause is cause else now.wall,
        again_at=now.wall + (error.seconds_left if isinstance(error, LeaseHeld) else pause),
        times=times + 1,
    )
    checkpoints.set_log_state(context.queue, job.name, now.wall, problem=said, remedy=command)


def _may_train_without_store(context: SyncContext, job: Job) -> bool:
    """A job that this home has worked on goes on locally while the store is away; the lease decides later whether that
    counts. A new one waits: nothing of it could be kept. So does one whose newest checkpoint only the store has."""
    if not context.daemon.handover.asks(job.name) or job.after is not None:
        return False
    run, durable = context.run(job.name), checkpoints.durable_step(context.queue, job.name)
    if durable is None:
        known = context.sight.view.log(job.name).created_at is not None
        return known and run.order.is_file()
    here = newest_verified(run, job.fingerprint)
    return here is not None and here[1].step >= durable


def _look_after(context: SyncContext, job: Job, now: Now) -> None:
    daemon = context.daemon
    log = context.sight.view.log(job.name)
    if job.is_final and log.done_at is not None:
        _see_that_it_is_there(context, job, now)
        return
    if ROOT in daemon.lost:
        raise daemon.lost[ROOT]
    if log.fenced and job.state is State.RUNNING and not job.finishing:
        return  # its trainer is being stopped; nothing more is uploaded
    if job.state in FINAL and log.created_at is None and job.name not in context.opened:
        return  # it ended before the store ever heard of it
    stored = open_job_log(context, job, now)
    is_idle = job.state is not State.RUNNING and not daemon.handover.asks(job.name) and job.name not in daemon.lost
    if is_due(stored, now) and (not is_idle or context.has_turn("idle", now)):
        confirm(stored, now)
        if is_idle and stored.lease is None and stored.hear(now):
            return
    if job.state is State.RUNNING:
        keep_running(stored, job, now)
    elif daemon.handover.asks(job.name):
        if hold(stored, now):
            if state_in_log(stored):
                stored.note(StateNote())  # released or retried since
            publish_regimes(stored, job, now)
            daemon.handover.give(job.name, prepare(stored, job, now))
    else:
        rest(stored, job, now)


def _see_that_it_is_there(context: SyncContext, job: Job, now: Now) -> None:
    """A job that is over is looked at too, one a round, and what killed uploads left of it is swept then."""
    known = context.opened.get(job.name)
    if ROOT in context.daemon.lost or (known and not is_due(known, now)) or not context.has_turn("done", now):
        return
    stored = open_job_log(context, job, now)
    stored.hear(now)  # another home may have given it more steps
    confirm(stored, now)
    stored.sweep(now)
    if now.monotonic - context.swept_inputs_at > INPUTS_DAY_SECONDS:
        context.swept_inputs_at = now.monotonic
        sweep_inputs(context, now)


def release_all(context: SyncContext, now: Now) -> None:
    """Give every lease back at the end of the daemon, as far as the store lets us."""
    for stored in context.opened.values():
        try:
            stored.give_back(now)
        except RunnerError:
            continue  # it lapses by itself
