"""set, extend: change how a job goes on, without changing what it has computed."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from runner.jobfile.overrides import read_pair
from runner.queue import changing, checkpoints, jobs
from runner.queue.database import Queue, open_queue
from runner.queue.rows import Job
from runner.settings import Settings
from runner.states import State
from wake2vec.contract.lock import read_lock


def set_values(settings: Settings, name: str, pairs: Sequence[str], *, as_json: bool) -> None:
    """KEY=VALUE, each as in a job file; raises RunnerError for a key that decides the result."""
    wanted = [read_pair(pair) for pair in pairs]
    with open_queue(settings.database) as queue:
        job = jobs.get_job(queue, name)
        for key, value in wanted:  # all are tried before any is kept
            changing.changed_spec(job, key, value)
        for key, value in wanted:
            job = changing.set_value(queue, name, key, value, time.time(), from_step=_saved_step(queue, name))
    _tell(job, ", ".join(f"{key} = {json.dumps(value)}" for key, value in wanted), as_json=as_json)


def extend(settings: Settings, name: str, steps: int, *, as_json: bool) -> None:
    """More steps. A job at work keeps its schedule to the end that it knows: its steps until then are not yet saved."""
    with open_queue(settings.database) as queue:
        job = jobs.get_job(queue, name)
        is_running = job.state is State.RUNNING
        keeps = job.steps if is_running or job.state is State.SUCCEEDED else None
        from_step = keeps or _saved_step(queue, name)
        job = changing.extend(queue, name, steps, time.time(), from_step=from_step)
        is_picked_up = queue.is_shared or read_lock(settings.daemon_lock) is not None
    said = f"goes on to step {steps:,}; the schedule is stretched from step {from_step:,} on"
    if is_running and not as_json:
        said += " (hold the job first to stretch it from where it stands)"
    elif job.state is State.QUEUED and not is_picked_up and not as_json:
        said += "; next: wake2vec-runner start"
    _tell(job, said, as_json=as_json)


def _saved_step(queue: Queue, name: str) -> int:
    return max((one.step for one in checkpoints.list_checkpoints(queue, name) if not one.quarantined), default=0)


def _tell(job: Job, said: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"format": 1, "name": job.name, "steps": job.steps, "changed": said}))
        return
    when = " from its next attempt on" if job.state is State.RUNNING else ""
    print(f"{job.name}: {said}{when}")
