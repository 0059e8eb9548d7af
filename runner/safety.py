"""Say at the end what is safe: for every job, which step the store has and what would be repeated."""

from __future__ import annotations

from runner.queue import checkpoints, jobs
from runner.queue.database import Queue
from runner.queue.rows import Job
from runner.settings import Settings
from runner.states import State
from wake2vec.rundir import RunDir, saved_steps


def safe_report(queue: Queue, settings: Settings) -> list[str]:
    return [_line(queue, settings, job) for job in jobs.list_jobs(queue)]


def _line(queue: Queue, settings: Settings, job: Job) -> str:
    if job.state is State.SUCCEEDED:
        return f"{job.name}: succeeded; results in {settings.runs / job.name} and in the store"
    durable = checkpoints.durable_step(queue, job.name)
    saved = max(saved_steps(RunDir(root=settings.runs / job.name)), default=None)
    of = f" of {job.steps}" if job.steps else ""
    said = f"{job.name}: {job.state}" + (f" ({job.reason})" if job.reason else "")
    if durable is None and saved is None:
        return f"{said}; no step is saved yet"
    if saved is not None and (durable is None or saved > durable):
        return f"{said}; step {saved}{of} is saved on this machine only, step {durable or 0} is safe in the store"
    return f"{said}; step {durable}{of} is safe in the store"
