"""How `start` ends by itself: when nothing can go on any more, or the cluster that it works on is gone."""

from __future__ import annotations

import time
from collections.abc import Mapping

from runner.context import DaemonContext
from runner.daemon.loops import Loops
from runner.errors import ClusterLost, NeedsYou, RunnerError, StoreLost, StoreUnavailable
from runner.machine.home import Say
from runner.queue import jobs, waiting
from runner.queue.database import Queue
from runner.queue.rows import Job
from runner.queue.view import View, see
from runner.states import State
from runner.sync.job_in_store import SyncContext
from runner.sync.standing import untold
from runner.sync.upload import is_settled
from runner.trouble import OF_THE_STORE, Cause, conclude, still_moving

CLUSTER_SECONDS = 15.0  # Ray ends a process that has asked in vain for a minute


def conclusion(
    daemon: DaemonContext, context: SyncContext, loops: Loops, patience_minutes: float, say: Say
) -> int | RunnerError | None:
    """How `--until-empty` ends, once nothing can move by itself any more; None while something can."""
    view = see(daemon.queue)
    every, working = view.jobs, {attempt.job for attempt in view.attempts}
    held = {name for name, stored in list(context.opened.items()) if stored.lease is not None}
    moving = {job.name for job in waiting.unfinished(every) if not is_elsewhere(view, job)} | held | working
    left = [job for job in every if job.name in moving]
    if not left:
        return None if untold(context) else left_to_you(daemon.queue)
    found = {job.name: trouble for job in left if (trouble := context.trouble_of(job.name)) is not None}
    moves = moving & {job.name for job in still_moving(every, working, context.trouble_of)}
    if working or moves or held - found.keys():
        loops.idle_since = None
        return None
    if loops.idle_since is None:
        loops.idle_since = time.monotonic()
        if any(one.cause in OF_THE_STORE - {Cause.LOST} for one in found.values()):
            until = time.strftime("%H:%M:%S", time.localtime(time.time() + 60 * patience_minutes))
            say(f"nothing else is left to do; the store is waited for until {until} (--store-patience)")
    unsent = [job.name for job in left if job.finishing or not is_settled(context, job)]
    waited = time.monotonic() - loops.idle_since
    return conclude(list(found.values()), unsent, waited, 60 * patience_minutes)


def is_elsewhere(view: View, job: Job | None) -> bool:
    """Whether only another home of a shared queue can go on with it, or with what it waits for."""
    if job is None or not view.queue.is_shared:
        return False
    if not view.is_mine(job.name):
        keeper = view.keepers[job.name].home if job.name in view.keepers else ""
        if job.state is State.RUNNING or (view.log(job.name).created_at is None and keeper not in view.at_work):
            return True
    return is_elsewhere(view, view.by_name.get(waiting.waiting_for(job, view.by_name)))


def left_to_you(queue: Queue) -> int | NeedsYou:
    """Nothing moves any more: 0 when every job has succeeded or was cancelled. How each is mended is said above."""
    left = [job.name for job in see(queue).mine if job.state not in (State.SUCCEEDED, State.CANCELLED)]
    return NeedsYou(f"only jobs that need you are left: {', '.join(left)}") if left else 0


def lost_cluster(daemon: DaemonContext, loops: Loops) -> ClusterLost | None:
    """The error to end with, once it has not answered for a while. The tick loop may be stuck in a question to Ray."""
    try:
        daemon.launcher.require_there()
    except ClusterLost as error:
        loops.alone_since = loops.alone_since or time.monotonic()
        return error if time.monotonic() - loops.alone_since > CLUSTER_SECONDS else None
    loops.alone_since = None
    return None


def unread(daemon: DaemonContext) -> dict[str, str]:
    """Jobs that the store lists and cannot show, unless their names were used again."""
    here = {job.name for job in jobs.list_jobs(daemon.queue)}
    return {job: why for job, why in daemon.unread.items() if job not in here}


def last_code(code: int, daemon: DaemonContext, doubts: Mapping[str, str]) -> int:
    """What is lost is said by the exit code before all else; a claim that could not be seen is no success."""
    if daemon.lost or (code == 0 and unread(daemon)):
        return StoreLost.exit_code
    return StoreUnavailable.exit_code if doubts and code == 0 else code
