"""The two loops: look at the trainers, and bring what they saved to the store; failures in a row are counted."""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from runner.context import DaemonContext, read_clocks
from runner.daemon.logs import append, describe
from runner.daemon.tick import tick
from runner.errors import QueueUnavailable, RunnerError
from runner.sync.job_in_store import SyncContext
from runner.sync.loop import sync

MOST_BUGS_IN_A_ROW = 5
MOST_TROUBLES_IN_A_ROW = 120


@dataclass(kw_only=True)
class Loops:
    """What the loops tell the main thread."""

    stop: threading.Event = field(default_factory=threading.Event)
    signals: int = 0
    bugs: dict[str, int] = field(default_factory=dict)
    last_error: BaseException | None = None
    last_text: str = ""
    shown: int = 0  # the last event that was said
    alone_since: float | None = None  # monotonic: since when the cluster has not answered
    idle_since: float | None = None  # monotonic: since when nothing can move by itself


def start_loops(daemon: DaemonContext, context: SyncContext, loops: Loops) -> BackgroundScheduler:
    """Two timers in memory, each in a thread of its own: a slow upload never delays a look at the trainers."""
    numbers = daemon.settings.numbers
    # a round that outlasts its interval is left out on purpose: no news for the screen
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    scheduler = BackgroundScheduler(
        timezone=datetime.UTC,  # its own look at TZ ends the program where that names no zone
        executors={"tick": ThreadPoolExecutor(1), "sync": ThreadPoolExecutor(1)},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
    )
    for name, action, seconds in (
        ("tick", lambda: tick(daemon, read_clocks()), numbers.tick_seconds),
        ("sync", lambda: sync_alone(context), numbers.sync_seconds),
    ):
        run = noting_failures(name, action, daemon, loops)
        scheduler.add_job(run, "interval", seconds=seconds, executor=name, id=name)
    scheduler.start()
    return scheduler


def sync_alone(context: SyncContext) -> None:
    """Only the daemon's end holds the lock else, for good: a round that waited for it would keep the process alive."""
    if context.busy.acquire(blocking=False):
        try:
            sync(context, read_clocks())
        finally:
            context.busy.release()


def noting_failures(name: str, action: Callable[[], None], daemon: DaemonContext, loops: Loops) -> Callable[[], None]:
    """Count failures in a row: a full disk is waited for, a bug ends the daemon before it can do harm."""

    def run() -> None:
        try:
            action()
        except (RunnerError, OSError) as error:
            _note(loops, name, error, 0 if isinstance(error, QueueUnavailable) else 1)
        except Exception as error:
            append(daemon.settings.daemon_log, describe(error, [name]))
            _note(loops, name, error, MOST_TROUBLES_IN_A_ROW // MOST_BUGS_IN_A_ROW)
        else:
            loops.bugs[name] = 0

    return run


def _note(loops: Loops, name: str, error: BaseException, weight: int) -> None:
    loops.last_error = error
    loops.bugs[name] = loops.bugs.get(name, 0) + weight
