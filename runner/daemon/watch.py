"""Look at the trainers that live: what they say, what they saved, whether they hang, whether they must stop."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from typing import Any

from runner.context import Position, Sign, Workplace
from runner.machine.launcher import end_group
from runner.machine.vram import threats
from runner.queue import attempts, checkpoints, jobs, ledger
from runner.queue.rows import Attempt, Job
from runner.states import Change, State, Wish
from wake2vec.contract.errors import CheckpointCorrupt
from wake2vec.contract.manifest import MANIFEST, manifest_sha256, read_manifest, saved_steps
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


def import_new_lines(work: Workplace, job: str, now: float) -> None:
    """Take over what a trainer's ledger gained; a file that was replaced is read from its start."""
    path = work.run(job).metrics
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            known = work.positions.get(job)
            continued = known is not None and known.inode == status.st_ino and known.offset <= status.st_size
            offset = known.offset if known is not None and continued else 0
            file.seek(offset)
            body = file.read()
    except FileNotFoundError:
        return
    whole = body[: body.rfind(b"\n") + 1]  # the last line may be half written
    if whole or not continued:
        ledger.import_ledger(work.queue, job, _lines(whole), now, from_start=not continued)
    work.positions[job] = Position(inode=status.st_ino, offset=offset + len(whole))


def _lines(body: bytes) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for line in body.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # torn by a power cut; the trainer writes the ledger anew when it resumes
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            found.append(row)
    return found


def note_saved(work: Workplace, job: str, now: float) -> None:
    """Bring the table of saved checkpoints in line with the run directory."""
    run = work.run(job)
    known = {one.step: one for one in work.sight.view.checkpoints(job) if one.saved_at is not None}
    there = set(saved_steps(run))
    for step in sorted(there - set(known)):
        folder = run.checkpoint(step)
        try:
            size = sum(file.size for file in read_manifest(folder).files.values())
            digest = manifest_sha256(folder)
        except (CheckpointCorrupt, FileNotFoundError):
            continue  # torn, or pruned a moment ago; the trainer sets it aside when it comes to it
        checkpoints.mark_saved(
            work.queue, job, step, manifest_sha256=digest, size=size, now=(folder / MANIFEST).stat().st_mtime
        )
    for step in set(known) - there:
        checkpoints.mark_gone_here(work.queue, job, step)


def promote(work: Workplace, job: Job, now: float) -> None:
    """Carry out a wish that came after the last step, end what the log calls done."""
    if job.finishing and job.wish is not None:
        change = {Wish.HOLD: Change.HOLD, Wish.CANCEL: Change.CANCEL}[job.wish]
        jobs.change_state(work.queue, job.name, change, now, reason=f"{change} on request")
        return
    log = work.sight.view.log(job.name)
    if job.finishing and log.fenced:
        # Trained to its end here, but another runner has gone on in the log: that is where the job is.
        jobs.change_state(work.queue, job.name, Change.REQUEUE, now, reason=log.problem, remedy=log.remedy)
        return
    if log.done_at is None:
        return
    if job.state is State.RUNNING and not job.finishing:
        return  # its trainer is told to stop first: the log is closed
    reason = "" if job.finishing else "finished by another runner"
    jobs.change_state(work.queue, job.name, Change.SUCCEED, now, reason=reason)
