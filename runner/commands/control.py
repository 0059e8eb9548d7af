"""hold, release, cancel, retry, kill: write what a person wishes; the daemon carries it out."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Sequence

from runner.errors import RunnerError
from runner.machine.launcher import end_group, holders
from runner.queue import jobs
from runner.queue.database import Queue, open_queue
from runner.queue.rows import Job
from runner.settings import Settings
from runner.states import State, Wish
from wake2vec.contract.lock import read_lock

Verb = Callable[[Queue, str, float], Job]

VERBS: dict[str, Verb] = {
    "hold": lambda queue, name, now: jobs.set_wish(queue, name, Wish.HOLD, now),
    "cancel": lambda queue, name, now: jobs.set_wish(queue, name, Wish.CANCEL, now),
    "release": jobs.release,
    "retry": jobs.retry,
    "kill": jobs.kill,
}


def run(settings: Settings, verb: str, names: Sequence[str], *, as_json: bool) -> None:
    """Do it for every name; raises the first error after all were tried."""
    with open_queue(settings.database) as queue:
        alive = queue.is_shared or read_lock(settings.daemon_lock) is not None
        done: list[Job] = []
        failed: list[RunnerError] = []
        for name in names:
            try:
                done.append(VERBS[verb](queue, name, time.time()))
            except RunnerError as error:
                failed.append(error)
                continue
            if verb == "kill":
                _end_trainer(settings, name)
    if as_json:
        table = [{"name": job.name, "state": job.state, "wish": job.wish} for job in done]
        print(json.dumps({"format": 1, "jobs": table}, indent=1))
    else:
        for job in done:
            print(f"{job.name}: {_said(verb, job, alive=alive)}")
    if failed:
        raise failed[0] if len(failed) == 1 else type(failed[0])("\n".join(str(error) for error in failed))


def _end_trainer(settings: Settings, name: str) -> None:
    """The lock is held by the trainer itself, so the pid in it is alive and is not somebody else's."""
    for holder in holders(settings.locks):
        if holder["job"] == name and isinstance(holder.get("pid"), int):
            end_group(holder["pid"], signal.SIGKILL)


def _said(verb: str, job: Job, *, alive: bool) -> str:
    if verb == "kill":
        return f"ended; held at its newest checkpoint. Go on with: wake2vec-runner release {job.name}"
    if job.wish is not None:
        when = "when its trainer has saved" if alive else "when a runner is at work again (none is now)"
        return f"{job.wish} takes effect {when}"
    if job.state is State.QUEUED:
        return "queued" if alive else "queued; next: wake2vec-runner start"
    return str(job.state)
