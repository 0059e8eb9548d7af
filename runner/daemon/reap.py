"""See which attempts have ended, and decide with `states.judge` what becomes of their jobs."""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress
from dataclasses import replace

from runner.context import DaemonContext, Now
from runner.errors import IllegalTransition
from runner.intake import import_new_lines, note_saved
from runner.machine.launcher import GPU_BUSY_EXIT, describe_exit
from runner.queue import attempts, checkpoints, jobs, sharing
from runner.queue.ledger import add_event, add_regime
from runner.queue.rows import Attempt, Job
from runner.states import Change, Ending, Outcome, RetryBudget, Verdict, Where, judge, same_failure
from wake2vec.contract.files import last_line
from wake2vec.contract.manifest import manifest_sha256, saved_steps, set_aside
from wake2vec.contract.rundir import Result, read_heartbeat, read_result


def reap(daemon: DaemonContext, now: Now) -> None:
    """Close every attempt whose trainer is gone; end every trainer whose attempt is closed."""
    open_ones = daemon.sight.view.attempts
    for attempt in open_ones:
        if not daemon.launcher.is_alive(attempt.id, attempt.gpu):
            close(daemon, attempt, now.wall)
    holders = {holder.pid: holder for gpu in daemon.gpus if (holder := daemon.launcher.holder(gpu)) is not None}
    for holder in holders.values():
        if holder.attempt and holder.attempt not in {one.id for one in open_ones}:
            _end_orphan(daemon, holder.pid, f"{holder.job} #{holder.attempt}", now)


def _end_orphan(daemon: DaemonContext, pid: int, name: str, now: Now) -> None:
    """A trainer that nobody waits for, left by a daemon that died: let it save, then end it."""
    asked_at = daemon.asked_at.setdefault(pid, now.monotonic)
    if asked_at == now.monotonic:
        add_event(daemon.queue, now.wall, "orphan", f"{name}: a trainer of an earlier daemon is asked to save and end")
        daemon.launcher.end(pid, signal.SIGTERM)
    elif now.monotonic - asked_at > daemon.settings.numbers.grace_seconds:
        daemon.launcher.end(pid, signal.SIGKILL)


def reap_left_behind(daemon: DaemonContext, now: float) -> None:
    """Of a shared queue: end what was going on in homes that are gone. Their jobs go on from what the store has."""
    running, unsent = sharing.left_behind(daemon.queue, daemon.living)
    for home, attempt in running:
        job, kept = jobs.get_job(daemon.queue, attempt.job), checkpoints.durable_step(daemon.queue, attempt.job) or 0
        ending = Ending(outcome=Outcome.LOST, same_session=False, wish=job.wish, stalls=job.stalls)
        with suppress(IllegalTransition):  # another home has just done it
            attempts.close_attempt(
                daemon.queue, attempt, judge(ending, _budget(daemon, job)), now,
                outcome=Outcome.LOST, last_step=kept, kept_step=kept, cause=f"{home} is not there any more",
            )  # fmt: skip
    for name in unsent:
        reason = "its home went away before its results were in the store"
        with suppress(IllegalTransition):
            jobs.change_state(daemon.queue, name, Change.REQUEUE, now, reason=reason)


def close(daemon: DaemonContext, attempt: Attempt, now: float) -> None:
    """Take over what the attempt left, and write how it ended together with what becomes of the job."""
    run = daemon.run(attempt.job)
    import_new_lines(daemon, attempt.job, now)
    note_saved(daemon, attempt.job)
    job = jobs.get_job(daemon.queue, attempt.job)
    result = read_result(run)
    result = result if result is not None and result.attempt == attempt.id else None
    newest = max(saved_steps(run), default=0)
    heartbeat = read_heartbeat(run)
    reached = heartbeat.step if heartbeat is not None and heartbeat.attempt == attempt.id else newest
    step = max(result.step, attempt.first_step) if result else max(reached, newest)
    ending = _ending(daemon, job, attempt, result, newest, step)
    verdict = judge(ending, _budget(daemon, job))
    if ending.outcome is Outcome.FAILED and ending.where == Where.FULL:
        verdict = _wait_for_space(daemon, job, ending)
    if daemon.launcher.is_lost(attempt.id):  # it may have lost the cluster first, and write until it notices
        verdict = replace(verdict, wait_seconds=max(verdict.wait_seconds, daemon.settings.numbers.lease_seconds))
    _remember(daemon, job, attempt, result, now)
    if verdict.roll_back:
        roll_back(daemon, job, newest, now)
    said = {"place": ending.where, "cause": ending.cause, "remedy": ending.remedy}
    attempts.close_attempt(
        daemon.queue, attempt, verdict, now, outcome=ending.outcome, last_step=step, kept_step=newest, **said
    )
    daemon.launcher.forget(attempt.id)
    daemon.signs.pop(attempt.id, None)
    if attempt.pid is not None:
        daemon.asked_at.pop(attempt.pid, None)


def _ending(daemon: DaemonContext, job: Job, attempt: Attempt, result: Result | None, newest: int, step: int) -> Ending:
    outcome, where, cause, remedy = _outcome(daemon, job, attempt, result)
    last = next((one for one in reversed(attempts.list_attempts(daemon.queue, job.name)) if one.id < attempt.id), None)
    return Ending(
        outcome=outcome,
        where=where,
        cause=cause,
        remedy=remedy,
        asked_to_stop=attempt.asked_to_stop_at is not None and outcome is not Outcome.HUNG,
        kept_new_step=newest > attempt.first_step,
        same_session=attempt.session == daemon.session.id and not daemon.launcher.is_lost(attempt.id),
        wish=job.wish,
        stalls=job.stalls,
        rolled_back=job.rolled_back,
        again=last is not None
        and same_failure((last.outcome, last.place, last.cause, last.last_step), (outcome, where, cause, step)),
    )


def _outcome(daemon: DaemonContext, job: Job, attempt: Attempt, result: Result | None) -> tuple[Outcome, str, str, str]:
    """Outcome, place, cause and remedy. The result file is the truth; an exit code only fills its absence."""
    if result is not None:
        if was_extended(job, result):
            return Outcome.YIELDED, result.where, f"it was extended to {job.steps} steps meanwhile", ""
        return Outcome(result.outcome), result.where, result.cause, result.remedy
    if attempt.outcome is Outcome.HUNG:
        return Outcome.HUNG, "training", attempt.cause, ""
    code = daemon.launcher.exit_code(attempt.id)
    if code == GPU_BUSY_EXIT:
        return Outcome.FAILED, Where.CARD, f"GPU {attempt.gpu} is taken by another trainer", ""
    if code is not None and code >= 0:
        cause = f"{describe_exit(code)}: {last_line(daemon.run(attempt.job).log)}"
        # a trainer that left no result has only its last words
        kinds = {os.strerror(errno.ENOSPC): Where.FULL, os.strerror(errno.EIO): Where.DISK}
        return Outcome.FAILED, next((kinds[said] for said in kinds if said in cause), Where.SETUP), cause, ""
    cause = "its host left the cluster" if daemon.launcher.is_lost(attempt.id) else describe_exit(code)
    return Outcome.LOST, "", cause, ""


def was_extended(job: Job, result: Result) -> bool:
    """Whether the trainer came to the end it knew of, and the job has been given more steps since."""
    at_its_end = result.outcome == "completed" and result.step == result.steps
    return at_its_end and job.steps is not None and result.step < job.steps


def _budget(daemon: DaemonContext, job: Job) -> RetryBudget:
    numbers = daemon.settings.numbers
    return RetryBudget(
        attempts=job.spec.runner.max_attempts,
        first_seconds=numbers.backoff_first_seconds,
        last_seconds=numbers.backoff_last_seconds,
    )


def _wait_for_space(daemon: DaemonContext, job: Job, ending: Ending) -> Verdict:
    """A full disk is not the job's fault: it waits, without a count, until there is room."""
    verdict = judge(Ending(outcome=Outcome.LOST, same_session=False, wish=ending.wish), _budget(daemon, job))
    return Verdict(
        change=verdict.change,
        stalls=job.stalls,
        wait_seconds=daemon.settings.numbers.backoff_first_seconds,
        reason=f"the disk is full: {ending.cause}",
        remedy=f"make room on the disk of {daemon.settings.home}",
    )


def _remember(daemon: DaemonContext, job: Job, attempt: Attempt, result: Result | None, now: float) -> None:
    """Keep the plan that the card was found to hold, and the end of a job that stopped early."""
    if result is None:
        return
    if result.plan:
        gpus = daemon.sight.view.gpus(attempt)
        attempts.remember_plan(daemon.queue, daemon.gpu_name(gpus), job.name, result.plan, now)
    if result.outcome == "completed" and not was_extended(job, result):
        jobs.end_at(daemon.queue, job.name, result.step)


def roll_back(daemon: DaemonContext, job: Job, step: int, now: float) -> None:
    """Put the newest checkpoint in quarantine, here and for every later session; it may hold the seed of the fault."""
    folder = daemon.run(job.name).checkpoint(step)
    if step < 1 or not folder.is_dir():
        return
    change = {"what": "quarantine", "step": step, "manifest_sha256": manifest_sha256(folder)}
    with daemon.queue.write() as connection:
        add_regime(connection, job.name, step, change, now)
    checkpoints.quarantine(daemon.queue, job.name, step)
    set_aside(folder)
