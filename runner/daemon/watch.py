"""Look at the trainers that live: what they say, what they saved, whether they hang, whether they must stop."""

from __future__ import annotations

import signal
from dataclasses import replace

from runner.context import DaemonContext, Now, Sign
from runner.intake import import_new_lines, note_saved, promote
from runner.machine.vram import threats
from runner.queue import attempts, jobs, ledger
from runner.queue.rows import Attempt, Job
from runner.states import Outcome
from wake2vec.contract.rundir import Heartbeat, read_heartbeat

ASLEEP_SECONDS = 60.0


def watch(daemon: DaemonContext, now: Now) -> None:
    sleep_through(daemon, now.monotonic)
    for attempt in daemon.sight.view.attempts:
        job = daemon.sight.view.by_name[attempt.job]
        heartbeat = listen(daemon, job, attempt, now.monotonic)
        warn(daemon, attempt, heartbeat, now.wall)
        import_new_lines(daemon, job.name, now.wall)
        note_saved(daemon, job.name)
        silence = silence_of(daemon, attempt, now.monotonic)
        if reason := reason_to_stop(daemon, job) or silence:
            stop(daemon, attempt, reason, now, at_once=job.end_now, outcome=Outcome.HUNG if reason == silence else None)
    for job in daemon.sight.view.mine:
        if not job.is_final:
            promote(daemon, job, now.wall)


def sleep_through(daemon: DaemonContext, monotonic: float) -> None:
    """Leave out the time in which nobody looked: what stopped this daemon stopped its trainers too, most likely."""
    slept = 0.0 if daemon.watched_at is None else monotonic - daemon.watched_at
    daemon.watched_at = monotonic
    if slept > ASLEEP_SECONDS:
        daemon.signs = {id: replace(sign, at=sign.at + slept) for id, sign in daemon.signs.items()}
        daemon.asked_at = {pid: at + slept for pid, at in daemon.asked_at.items()}


def listen(daemon: DaemonContext, job: Job, attempt: Attempt, monotonic: float) -> Heartbeat | None:
    """Note a heartbeat that changed, and return it; learn from it how long a job measured in epochs is."""
    heartbeat = read_heartbeat(daemon.run(attempt.job))
    known = daemon.signs.get(attempt.id)
    if heartbeat is None or heartbeat.attempt != attempt.id:
        if daemon.launcher.is_waiting(attempt.id):
            daemon.signs.pop(attempt.id, None)
        daemon.signs.setdefault(attempt.id, Sign(beat=-1, state="starting", at=monotonic))
        return None
    if known is None or known.beat != heartbeat.beat:
        daemon.signs[attempt.id] = Sign(beat=heartbeat.beat, state=heartbeat.state, at=monotonic)
    if job.steps is None and heartbeat.steps:
        jobs.set_steps(daemon.queue, attempt.job, heartbeat.steps)
    return heartbeat


def warn(daemon: DaemonContext, attempt: Attempt, heartbeat: Heartbeat | None, now: float) -> None:
    """Tell, once an attempt, what threatens the memory of its card. The trainer sees to itself, between two steps."""
    if not daemon.cards or heartbeat is None or heartbeat.vram_reserved_mib is None:
        return
    card = next((one for one in daemon.read_cards() if one.index == attempt.gpu), None)
    if card is None:
        return
    told = daemon.warned.setdefault(attempt.id, set())
    for kind, text in threats(card, heartbeat.vram_reserved_mib, heartbeat.vram_retries or 0).items():
        if kind not in told:
            told.add(kind)
            ledger.add_event(daemon.queue, now, "vram", f"{attempt.job} #{attempt.id}: {text}", job=attempt.job)


def reason_to_stop(daemon: DaemonContext, job: Job) -> str:
    """Why the trainer must save and end now; empty when it may go on."""
    if daemon.is_stopping:
        return "the daemon is stopping"
    if job.wish is not None:
        return f"{job.wish} was asked for"
    log = daemon.sight.view.log(job.name)
    return log.problem if log.fenced else ""


def silence_of(daemon: DaemonContext, attempt: Attempt, monotonic: float) -> str:
    """That the trainer hangs, and since when; empty while its heartbeat goes on."""
    sign = daemon.signs.get(attempt.id)
    silent = monotonic - sign.at if sign else 0.0
    if silent > 60 * daemon.settings.numbers.hang_minutes:
        return f"no sign of life for {silent / 60:.0f} min in state {sign.state if sign else 'starting'}"
    return ""


def stop(
    daemon: DaemonContext, attempt: Attempt, reason: str, now: Now, *, at_once: bool, outcome: Outcome | None
) -> None:
    """SIGTERM first; SIGKILL to the whole group when the grace time is over, or at once for `kill`."""
    pid = daemon.launcher.pid(attempt.id, attempt.gpu)
    if pid is None:
        return
    asked_at = daemon.asked_at.get(pid)
    if at_once:
        daemon.launcher.end(pid, signal.SIGKILL)
    elif asked_at is None:
        daemon.launcher.end(pid, signal.SIGTERM)
    elif now.monotonic - asked_at > daemon.settings.numbers.grace_seconds:
        daemon.launcher.end(pid, signal.SIGKILL)
    if asked_at is None:
        daemon.asked_at[pid] = now.monotonic
        attempts.ask_to_stop(daemon.queue, attempt.id, now.wall, reason, outcome)
        ledger.add_event(
            daemon.queue, now.wall, "stop", f"{attempt.job} #{attempt.id}: told to end: {reason}", job=attempt.job
        )
