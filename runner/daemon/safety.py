"""The end of a daemon: have everything saved and in the store, and say for every job what is safe."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping

from runner.context import DaemonContext
from runner.queue import attempts, checkpoints, jobs, waiting
from runner.queue.database import Queue
from runner.queue.ledger import add_event
from runner.queue.rows import Job
from runner.queue.view import see
from runner.settings import Settings
from runner.states import State
from runner.sync.job_in_store import SyncContext
from runner.sync.standing import untold
from runner.sync.upload import is_settled
from wake2vec.contract.manifest import saved_steps
from wake2vec.contract.rundir import RunDir


def bring_to_safety(
    daemon: DaemonContext,
    context: SyncContext,
    say: Callable[[str], None],
    meanwhile: Callable[[], None],
    *,
    for_trainers: bool,
    for_the_store: bool,
) -> None:
    """Have every trainer save and end, then bring what it saved to the store; each within the grace time."""
    daemon.is_stopping = True
    grace = daemon.settings.numbers.grace_seconds
    wait_for(lambda: not (for_trainers and see(daemon.queue).attempts), 2 * grace, meanwhile)
    every = [
        job for job in jobs.list_jobs(daemon.queue) if job.state in (State.QUEUED, State.RUNNING) and for_the_store
    ]
    held = [job for job in every if job.name in context.opened and context.opened[job.name].lease is not None]
    if not all(is_settled(context, job) for job in held):
        say(f"bringing the last checkpoint to {daemon.store.properties.place}")
    wait_for(lambda: all(is_settled(context, job) for job in held), grace, meanwhile)
    if for_the_store:  # another home would else go on with what is cancelled or held here
        wait_for(lambda: not untold(context), grace, meanwhile)
    add_event(daemon.queue, time.time(), "stopped", "the daemon stopped")


def end_without_queue(daemon: DaemonContext, say: Callable[[str], None]) -> None:
    """Have every trainer save and end where nobody can be told of it; the next start finds what each left."""
    held = {gpu: holder for gpu in daemon.gpus if (holder := daemon.launcher.holder(gpu)) is not None}
    for holder in held.values():
        daemon.launcher.end(holder.pid, signal.SIGTERM)
    grace = daemon.settings.numbers.grace_seconds
    wait_for(lambda: not any(daemon.launcher.holder(gpu) for gpu in held), grace, lambda: None)
    for name in sorted({holder.job for holder in held.values()}):
        step = max(saved_steps(daemon.run(name)), default=0)
        say(f"{name}: step {step} is saved on this machine; the next start goes on from there")


def wait_for(condition: Callable[[], bool], seconds: float, meanwhile: Callable[[], None]) -> None:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up and not condition():
        meanwhile()
        time.sleep(0.05)


def safe_report(queue: Queue, settings: Settings, doubts: Mapping[str, str]) -> list[str]:
    """`doubts` says by job why what the store is to hold of it could not be seen there just now."""
    view = see(queue)
    if not view.jobs:
        return [waiting.NOTHING_QUEUED]
    return [
        _line(queue, settings, job, doubts.get(job.name, "")) + _mend(queue, job, view.by_name) for job in view.mine
    ]


def _mend(queue: Queue, job: Job, every: dict[str, Job]) -> str:
    """What a person can do, where only a person can."""
    if behind := waiting.blocked(job, every):
        return f"; {behind.text}"
    last = attempts.list_attempts(queue, job.name)[-1:]
    command = waiting.mend(job, every, last[0].place if last else "", jobs.file_of(queue, job.name))
    told = [job.remedy] if job.remedy and command else []
    return "".join(f"; {part}" for part in (*told, f"`{command}`" if command else "") if part)


def _line(queue: Queue, settings: Settings, job: Job, doubt: str) -> str:
    if doubt:
        step = max(saved_steps(RunDir(root=settings.runs / job.name)), default=None)
        here = "no checkpoint of it is on this machine" if step is None else f"step {step} is saved on this machine"
        return f"{job.name}: {here}; what the store should hold could not be seen: {doubt}"
    if job.state is State.SUCCEEDED:
        run = RunDir(root=settings.runs / job.name)
        here = f"in {run.root} and " if run.final.is_dir() else ""
        return f"{job.name}: succeeded; results {here}in the store"
    durable = checkpoints.durable_step(queue, job.name)
    saved = max(saved_steps(RunDir(root=settings.runs / job.name)), default=None)
    of = f" of {job.steps}" if job.steps else ""
    said = f"{job.name}: {'trained' if job.finishing else job.state}" + (f" ({job.reason})" if job.reason else "")
    if durable is None and saved is None:
        return f"{said}; no step is saved yet"
    if saved is not None and (durable is None or saved > durable):
        return f"{said}; step {saved}{of} is saved on this machine only, step {durable or 0} is safe in the store"
    return f"{said}; step {durable}{of} is safe in the store"
