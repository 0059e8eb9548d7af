"""Have a job's run on this machine, out of the store where it ended on another one, and use what it trained."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from runner.commands.results.process import run_folder, use
from runner.context import read_clocks
from runner.daemon.main import context_of
from runner.errors import DaemonRunning, StoreUnavailable
from runner.machine.home import check_home, only_daemon
from runner.queue import jobs
from runner.queue.database import Queue, open_queue
from runner.queue.rows import Job
from runner.settings import Settings
from runner.sync.fetch import fetch_result, is_here
from runner.sync.opening import open_job_log
from runner.sync.rebuild import restore
from wake2vec.contract.lock import read_lock
from wake2vec.contract.options import TOOLS
from wake2vec.contract.rundir import RunDir


def use_trained(settings: Settings, tool: str, name: str, **asked: Any) -> None:
    """`asked` are fields of the tool's options, None for their defaults; exits with the tool's own code."""
    options = TOOLS[tool].of(run=settings.runs / name, **asked)
    if (step := options.needs) is not None:
        at_hand(settings, name, step)
    use(options)


def at_hand(settings: Settings, name: str, step: str) -> RunDir:
    """The run of a job, with its weights at `step`: a number, best, newest or final.

    On a machine that has nothing but the store it looks there first. Raises UnknownJob, StoreUnavailable, and
    RunnerError when the job has not come that far.
    """
    check_home(settings.home, allow_network=False)
    with open_queue(settings.database) as queue:
        if not _is_here(queue, settings, name, step):
            _bring(queue, settings, name, step)
        elif step == "final" and not jobs.get_job(queue, name).is_final and run_folder(settings, name).final.is_dir():
            _say(f"note: {name} was extended and goes on; this is its result at the end that it had before")
    return run_folder(settings, name)


def bring_jobs(settings: Settings, queue: Queue) -> None:
    """Have the jobs of the store in the queue, as `start` does first of all; where a runner works, they are."""
    check_home(settings.home, allow_network=False)
    if read_lock(settings.daemon_lock) is None:
        with only_daemon(settings.home):
            restore(context_of(settings, queue), read_clocks(), _say)


def hand_in(settings: Settings, queue: Queue, names: Sequence[str]) -> None:
    """Bring the texts of new jobs of a shared queue to the store, so that any home can run them."""
    if not queue.is_shared or read_lock(settings.daemon_lock) is not None:  # whose runner does it at its next round
        return
    try:
        with only_daemon(settings.home):
            context = context_of(settings, queue)
            for name in names:
                open_job_log(context, jobs.get_job(queue, name), read_clocks())
    except (StoreUnavailable, DaemonRunning) as error:
        _say(f"{error}\nnote: other homes can run it once a runner of this one has brought its texts to the store")


def _is_here(queue: Queue, settings: Settings, name: str, step: str) -> bool:
    """Whether there is nothing to fetch: of a job that has not ended, the runner fetches what is needed."""
    job = _known(queue, name)
    return job is not None and (not job.is_final or is_here(RunDir(root=settings.runs / name), step))


def _known(queue: Queue, name: str) -> Job | None:
    """None in a home that knows no job at all. Raises UnknownJob in one that knows others."""
    return jobs.get_job(queue, name) if jobs.list_jobs(queue) else None


def _bring(queue: Queue, settings: Settings, name: str, step: str) -> None:
    context = context_of(settings, queue)
    if _known(queue, name) is None:
        with only_daemon(settings.home):  # which would do the same
            restore(context, read_clocks(), _say)
    job = jobs.get_job(queue, name)
    if job.is_final:
        _say(f"{name}: fetching its result from {context.daemon.store.properties.place}")
        fetch_result(context, job, step, read_clocks())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
