"""One round of the sync loop: for every job, have its log, its lease, and in the store what is saved here."""

from __future__ import annotations

from contextlib import suppress

from runner.context import Ready
from runner.errors import (
    Fenced,
    LeaseHeld,
    RunnerError,
    StoreFull,
    StoreLost,
    StoreUnavailable,
)
from runner.queue import checkpoints
from runner.queue.ledger import add_event
from runner.queue.rows import Job
from runner.states import FINAL, State
from runner.store.known import ROOT
from runner.store.publish import sweep
from runner.store.records import commits, is_done, newest_commit, regimes
from runner.sync.copies import mirror
from runner.sync.job_in_store import Care, Keeper, beat, give_back, hold, keeper_of, lose
from runner.sync.mend import repair_when_agreed
from runner.sync.prepare import prepare
from runner.sync.prune import INPUTS_DAY_SECONDS, prune, sweep_inputs
from runner.sync.trust import LOST_SECONDS, check, confirm, distrust, is_due, look
from runner.sync.upload import finish, publish_regimes, publish_saved, publish_vocabulary
from runner.trouble import Trouble, cause_of, command_of
from wake2vec.contract.errors import CheckpointCorrupt
from wake2vec.contract.manifest import newest_verified

FIRST_RETRY_SECONDS = 2.0
LAST_RETRY_SECONDS = 120.0
IDLE_LEASE_SECONDS = 10.0
TOLD_IN_THE_LOG = (State.HELD, State.FAILED, State.CANCELLED)


def sync(care: Care, now: float, monotonic: float) -> None:
    """Running jobs first, then those that tick wants to start, then the rest."""
    work = care.work
    if work.lost:
        repair_when_agreed(care, now, lambda text: add_event(work.queue, now, "repaired", text))
    look(care, now, monotonic)
    asked = work.handover.asked()
    for job in sorted(care.sight.look().jobs, key=lambda job: _rank(job, asked)):
        if monotonic < care.retry_at.get(job.name, -1e9):
            _stay_alive(care, job, now, monotonic)
        else:
            _guarded(care, job, now, monotonic)
    if not work.lost:
        mirror(care, now, monotonic)


def _rank(job: Job, asked: dict[str, int]) -> tuple[int, int]:
    if job.name in asked:
        return 1, asked[job.name]
    return {State.RUNNING: 0, State.QUEUED: 2}.get(job.state, 3), job.number


def _guarded(care: Care, job: Job, now: float, monotonic: float) -> None:
    """Whatever keeps one job from the store is written down for that job, and does not hinder the others."""
    try:
        _look_after(care, job, now, monotonic)
    except Fenced as error:
        care.troubles.pop(job.name, None)
        lose(care, job.name, now, str(error))
    except StoreLost as error:
        with suppress(StoreUnavailable):
            check(care, now)  # all of it, or only this job?
        if ROOT not in care.work.lost:
            distrust(care, job.name, error, now)
        if _may_train_without_store(care, job):
            care.work.handover.give(job.name, Ready())
        _wait(care, job, now, monotonic, error, most=LOST_SECONDS)
    except StoreUnavailable as error:
        care.trouble_at = monotonic
        if _may_train_without_store(care, job):
            care.work.handover.give(job.name, Ready())
        _wait(care, job, now, monotonic, error, most=LAST_RETRY_SECONDS)
    except (RunnerError, CheckpointCorrupt) as error:
        _wait(care, job, now, monotonic, error, most=5.0 if isinstance(error, LeaseHeld) else LAST_RETRY_SECONDS)
    except OSError as error:
        _wait(care, job, now, monotonic, error, most=30.0)
    else:
        care.troubles.pop(job.name, None)
        care.retry_at.pop(job.name, None)
        log = care.sight.view.log(job.name)
        if not log.fenced and (log.problem or log.remedy or not log.changed_at):
            checkpoints.set_log_state(care.work.queue, job.name, now, problem="", remedy="")


def _stay_alive(care: Care, job: Job, now: float, monotonic: float) -> None:
    """While a job's uploads wait, nobody shall take this runner for dead."""
    keeper = care.keepers.get(job.name)
    if keeper is not None:
        try:
            beat(care, keeper, monotonic)
        except Fenced as error:
            lose(care, job.name, now, str(error))


def _wait(care: Care, job: Job, now: float, monotonic: float, error: Exception, *, most: float) -> None:
    cause, before = cause_of(error), care.troubles.get(job.name)
    times = before.times if before is not None else 0
    pause = min(FIRST_RETRY_SECONDS * 2.0 ** min(times, 16), most)
    care.retry_at[job.name] = monotonic + pause
    said, command = str(error), command_of(error, cause, job.name)
    if isinstance(error, OSError):
        said = f"{error.filename or care.work.settings.home}: {error.strerror}"
        command = f"make room on the disk of {care.work.settings.home}, or see whether it can be written"
    care.troubles[job.name] = Trouble(
        job=job.name,
        cause=cause,
        said=said,
        command=command,
        since_at=before.since_at if before is not None and before.cause is cause else now,
        again_at=now + (error.seconds_left if isinstance(error, LeaseHeld) else pause),
        times=times + 1,
    )
    checkpoints.set_log_state(care.work.queue, job.name, now, problem=said, remedy=command)


def _may_train_without_store(care: Care, job: Job) -> bool:
    """A job that this home has worked on goes on locally while the store is away; the lease decides later whether that
    counts. A new one waits: nothing of it could be kept. So does one whose newest checkpoint only the store has."""
    if not care.work.handover.asks(job.name) or job.after is not None:
        return False
    run, durable = care.work.run(job.name), checkpoints.durable_step(care.work.queue, job.name)
    if durable is None:
        known = care.sight.view.log(job.name).created_at is not None
        return known and run.order.is_file()
    here = newest_verified(run, job.fingerprint)
    return here is not None and here[1].step >= durable


def _look_after(care: Care, job: Job, now: float, monotonic: float) -> None:
    work = care.work
    log = care.sight.view.log(job.name)
    if job.is_final and log.done_at is not None:
        _see_that_it_is_there(care, job, now, monotonic)
        return
    if ROOT in work.lost:
        raise work.lost[ROOT]
    if log.fenced and job.state is State.RUNNING and not job.finishing:
        return  # its trainer is being stopped; nothing more is uploaded
    if job.state in FINAL and log.created_at is None and job.name not in care.keepers:
        return  # it ended before the store ever heard of it
    keeper = keeper_of(care, job, now)
    if is_due(care, keeper, monotonic):
        confirm(care, keeper, now, monotonic)
    if job.state is State.RUNNING:
        _keep_running(care, keeper, job, now, monotonic)
    elif work.handover.asks(job.name):
        if _hold(care, keeper, now, monotonic):
            if _state_in_log(keeper):
                keeper.note("state", state="")  # released or retried since
            publish_regimes(care, keeper, job, now)
            work.handover.give(job.name, prepare(care, keeper, job, now))
    else:
        _rest(care, keeper, job, now, monotonic)


def _see_that_it_is_there(care: Care, job: Job, now: float, monotonic: float) -> None:
    """A job that is over is looked at too, one a round, and what killed uploads left of it is swept then."""
    known = care.keepers.get(job.name)
    if ROOT in care.work.lost or monotonic == care.looked_at_done or (known and not is_due(care, known, monotonic)):
        return
    care.looked_at_done = monotonic
    keeper = keeper_of(care, job, now)
    confirm(care, keeper, now, monotonic)
    sweep(care.work.store, keeper.log, journal=care.journal, now=now)
    if monotonic - care.swept_inputs_at > INPUTS_DAY_SECONDS:
        care.swept_inputs_at = monotonic
        sweep_inputs(care, now)


def _hold(care: Care, keeper: Keeper, now: float, monotonic: float) -> bool:
    """Have the lease; False when the job is done, which counts once all of it has been seen."""
    if hold(care, keeper, now, monotonic):
        return True
    confirm(care, keeper, now, monotonic, fully=True)
    checkpoints.set_log_state(care.work.queue, keeper.job, now, done_at=now, problem="", remedy="", fenced=False)
    return False


def _keep_running(care: Care, keeper: Keeper, job: Job, now: float, monotonic: float) -> None:
    fresh = keeper.lease is None
    if not _hold(care, keeper, now, monotonic):
        return
    if fresh:
        _see_whether_it_was_passed(care, keeper, job, now)
    _publish(care, keeper, job, now)
    prune(care, keeper, job)
    if job.finishing and job.wish is None:
        finish(care, keeper, job, now)


def _see_whether_it_was_passed(care: Care, keeper: Keeper, job: Job, now: float) -> None:
    """A job that went on while the store was away may find that another runner did so too, and was faster."""
    foreign = [one for one in commits(keeper.log.records) if one.holder != care.work.holder]
    known = {one.manifest_sha256 for one in care.sight.view.checkpoints(job.name)}
    if (
        foreign
        and foreign[-1] is newest_commit(keeper.log.records)
        and foreign[-1].payload["manifest"]["sha256"] not in known
    ):
        give_back(care, keeper, now)
        raise Fenced(f"{job.name}: {foreign[-1].holder} has gone on with this job; it is taken up from there")


def _rest(care: Care, keeper: Keeper, job: Job, now: float, monotonic: float) -> None:
    """Nothing of the job runs: bring what it saved to the store, say in the log how it stands, give the lease back."""
    work = care.work
    if job.state is State.QUEUED:
        if keeper.lease is not None and not work.handover.holds(job.name):
            _publish(care, keeper, job, now)
            beat(care, keeper, monotonic)
            if monotonic - keeper.used_at > IDLE_LEASE_SECONDS or work.is_stopping:
                give_back(care, keeper, now)
        return
    work.handover.take(job.name)
    if (keeper.lease is None and keeper.rested_at == job.changed_at) or is_done(keeper.log.records):
        return
    if _hold(care, keeper, now, monotonic):
        _publish(care, keeper, job, now)
        if job.state is State.SUCCEEDED:  # the log that said so is gone, and begun anew
            finish(care, keeper, job, now)
            return
        if _state_in_log(keeper) != job.state and job.state in TOLD_IN_THE_LOG:
            keeper.note("state", state=str(job.state), reason=job.reason, remedy=job.remedy)
        give_back(care, keeper, now)
        keeper.rested_at = job.changed_at


def _publish(care: Care, keeper: Keeper, job: Job, now: float) -> None:
    publish_vocabulary(care, keeper, job)
    publish_regimes(care, keeper, job, now)
    try:
        publish_saved(care, keeper, job, now)
    except StoreFull:  # what nothing needs any more may be all that is in the way
        prune(care, keeper, job)
        sweep(care.work.store, keeper.log, journal=care.journal, now=now)
        publish_saved(care, keeper, job, now)


def _state_in_log(keeper: Keeper) -> str:
    """What was told last; nothing for a job that is queued or runs."""
    told = [record for record in regimes(keeper.log.records) if record.payload.get("what") == "state"]
    return str(told[-1].payload["state"]) if told else ""


def release_all(care: Care, now: float) -> None:
    """Give every lease back at the end of the daemon, as far as the store lets us."""
    for keeper in care.keepers.values():
        try:
            give_back(care, keeper, now)
        except RunnerError:
            continue  # it lapses by itself
