"""Look at the trainers that live: what they say, what they saved, whether they hang, whether they must stop."""

from __future__ import annotations

import signal

from runner.context import Sign, Workplace
from runner.intake import import_new_lines, note_saved, promote
from runner.machine.launcher import end_group
from runner.machine.vram import threats
from runner.queue import attempts, jobs, ledger
from runner.queue.rows import Attempt, Job
from wake2vec.contract.rundir import Heartbeat, read_heartbeat

HUNG = "no sign of life"


def watch(work: Workplace, now: float, monotonic: float) -> None:
    for attempt in work.sight.view.attempts:
        job = work.sight.view.by_name[attempt.job]
        heartbeat = listen(work, job, attempt, monotonic)
        warn(work, attempt, heartbeat, now)
        import_new_lines(work, job.name, now)
        note_saved(work, job.name, now)
        if reason := reason_to_stop(work, job, attempt, monotonic):
            stop(work, attempt, reason, now, monotonic, at_once=job.end_now)
    for job in work.sight.view.jobs:
        if not job.is_final:
            promote(work, job, now)


def listen(work: Workplace, job: Job, attempt: Attempt, monotonic: float) -> Heartbeat | None:
    """Note a heartbeat that changed, and return it; learn from it how long a job measured in epochs is."""
    heartbeat = read_heartbeat(work.run(attempt.job))
    known = work.signs.get(attempt.id)
    if heartbeat is None or heartbeat.attempt != attempt.id:
        work.signs.setdefault(attempt.id, Sign(beat=-1, state="starting", at=monotonic))
        return None
    if known is None or known.beat != heartbeat.beat:
        work.signs[attempt.id] = Sign(beat=heartbeat.beat, state=heartbeat.state, at=monotonic)
    if job.steps is None and heartbeat.steps:
        jobs.set_steps(work.queue, attempt.job, heartbeat.steps)
    return heartbeat


def warn(work: Workplace, attempt: Attempt, heartbeat: Heartbeat | None, now: float) -> None:
    """Tell, once an attempt, what threatens the memory of its card. The trainer sees to itself, between two steps."""
    if not work.cards or heartbeat is None or heartbeat.vram_reserved_mib is None:
        return
    card = next((one for one in work.read_cards() if one.index == attempt.gpu), None)
    if card is None:
        return
    told = work.warned.setdefault(attempt.id, set())
    for kind, text in threats(card, heartbeat.vram_reserved_mib, heartbeat.vram_retries or 0).items():
        if kind not in told:
            told.add(kind)
            ledger.add_event(work.queue, now, "vram", f"{attempt.job} #{attempt.id}: {text}", job=attempt.job)


def reason_to_stop(work: Workplace, job: Job, attempt: Attempt, monotonic: float) -> str:
    """Why the trainer must end now; empty when it may go on."""
    if work.is_stopping:
        return "the daemon is stopping"
    if job.wish is not None:
        return f"{job.wish} was asked for"
    if (log := work.sight.view.log(job.name)).fenced:
        return log.problem
    sign = work.signs.get(attempt.id)
    silent = monotonic - sign.at if sign else 0.0
    if silent > 60 * work.settings.numbers.hang_minutes:
        return f"{HUNG} for {silent / 60:.0f} min in state {sign.state if sign else 'starting'}"
    return ""


def stop(
    work: Workplace, attempt: Attempt, reason: str, now: float, monotonic: float, *, at_once: bool = False
) -> None:
    """SIGTERM first; SIGKILL to the whole group when the grace time is over, or at once for `kill`."""
    pid = work.launcher.pid(attempt.id, attempt.gpu)
    if pid is None:
        return
    asked_at = work.asked_at.get(pid)
    if at_once:
        end_group(pid, signal.SIGKILL)
    elif asked_at is None:
        end_group(pid, signal.SIGTERM)
    elif monotonic - asked_at > work.settings.numbers.grace_seconds:
        end_group(pid, signal.SIGKILL)
    if asked_at is None:
        work.asked_at[pid] = monotonic
        attempts.ask_to_stop(work.queue, attempt.id, now, reason)
        ledger.add_event(
            work.queue, now, "stop", f"{attempt.job} #{attempt.id}: told to end: {reason}", job=attempt.job
        )
