"""Start what can start: the next job for every free card, with its order written first."""

from __future__ import annotations

import os
import shutil

from runner.errors import IllegalTransition
from runner.launcher import trainer_environment
from runner.queue import attempts, checkpoints, jobs, waiting
from runner.queue.ledger import add_event
from runner.queue.rows import Job
from runner.session import mean_session_minutes
from runner.states import is_due
from runner.vram import reason_not_to_start
from runner.workplace import Ready, Workplace
from wake2vec.failpoints import failpoint
from wake2vec.files import write_json
from wake2vec.manifest import saved_steps
from wake2vec.order import Order

SHORTEST_SESSION_SECONDS = 120.0
SPARE_BYTES = 64 << 20


def dispatch(work: Workplace, now: float) -> None:
    """Claim and start. A job that could start but is not ready is named to the sync loop."""
    work.wanted = []
    if work.is_stopping:
        return
    taken = {attempt.gpu for attempt in attempts.open_attempts(work.queue)}
    free = [gpu for gpu in work.gpus if gpu not in taken and work.launcher.holder(gpu) is None]
    longest_wait = work.settings.numbers.backoff_last_seconds
    candidates = [
        job
        for job in waiting.claimable(jobs.list_jobs(work.queue))
        if is_due(job.not_before, now, longest_wait) and not explain(work, job, obstacle(work, job, free, now))
    ]
    for job in candidates:
        if not free:
            break
        ready = work.ready.pop(job.name, None)
        if ready is None:
            work.wanted.append(job.name)
            continue
        start(work, job, ready, free.pop(0), now)


def obstacle(work: Workplace, job: Job, free: list[int], now: float) -> str:
    """What on this machine keeps the job from starting."""
    if work.stop_by is not None and work.stop_by - now < SHORTEST_SESSION_SECONDS:
        return f"the session ends in {max(0.0, work.stop_by - now):.0f} s; the next one goes on"
    sizes = [one.size for one in checkpoints.list_checkpoints(work.queue, job.name)]
    needed = SPARE_BYTES + 3 * max(sizes, default=0)
    room = shutil.disk_usage(work.settings.home).free
    if room < needed:
        return (
            f"the disk is full: {room >> 20:,} MiB free, {needed >> 20:,} MiB needed; make room in {work.settings.home}"
        )
    if free and work.cards:
        return reason_not_to_start({card.index: card for card in work.read_cards()}.get(free[0]))
    return ""


def explain(work: Workplace, job: Job, reason: str) -> str:
    work.obstacles.pop(job.name, None)
    if reason:
        work.obstacles[job.name] = reason
    if reason and reason != job.reason:
        jobs.update_job(work.queue, job.name, reason=reason)
    return reason


def start(work: Workplace, job: Job, ready: Ready, gpu: int, now: float) -> None:
    """Claim the job for the card, write the order, start the trainer."""
    run = work.run(job.name)
    first_step = max(saved_steps(run), default=0)
    try:
        attempt = attempts.claim(
            work.queue, job.name, session=work.session.id, gpu=gpu, first_step=first_step, now=now,
            above=ready.last_attempt,
        )  # fmt: skip
    except IllegalTransition:
        return  # the person was faster: held or cancelled a moment ago
    failpoint("dispatch.claimed")
    # Left by an attempt that may have had this number, before the database was rebuilt.
    run.result.unlink(missing_ok=True)
    run.heartbeat.unlink(missing_ok=True)
    order = order_of(work, job, ready, attempt=attempt.id, gpu=attempt.gpu)
    write_json(run.order, order.model_dump(mode="json"))
    failpoint("dispatch.ordered")
    environment = trainer_environment(os.environ, gpu, len(work.cards))
    pid = work.launcher.start(run, attempt.id, environment, job.phase)
    attempts.set_pid(work.queue, attempt.id, pid)
    said = f"{job.name} #{attempt.id}: started on {work.gpu_name(gpu)} from step {first_step}"
    add_event(work.queue, now, "started", said, job=job.name)


def order_of(work: Workplace, job: Job, ready: Ready, *, attempt: int, gpu: int) -> Order:
    return Order(
        job=job.spec,
        fingerprint=job.fingerprint,
        attempt=attempt,
        inputs=job.inputs,
        inputs_folder=str(work.settings.inputs),
        source=ready.source,
        gpu_lock=str(work.launcher.lock(gpu)),
        stop_by=work.stop_by,
        mean_session_minutes=mean_session_minutes(attempts.list_sessions(work.queue)),
        plan=attempts.plan_limit(work.queue, work.gpu_name(gpu), job.name),
    )
