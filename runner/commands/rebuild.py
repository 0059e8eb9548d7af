"""rebuild: make the database anew from the logs in the store alone."""

from __future__ import annotations

import time
from pathlib import Path

from runner.children import QUEUE_VARIABLE
from runner.context import read_clocks
from runner.daemon.main import context_of
from runner.errors import DatabaseCorrupt, RunnerError
from runner.machine.home import check_home, only_daemon
from runner.queue import jobs
from runner.queue.database import open_queue
from runner.queue.rows import Job
from runner.queue.sqlite import Aside, check_integrity, set_aside
from runner.screen.daemon_note import forget_note
from runner.settings import Settings, holder_of
from runner.store.known import ROOT, KnownLogs
from runner.store.open import open_store
from runner.store.root import open_root
from runner.sync.rebuild import rebuild


def run(settings: Settings) -> None:
    """The old database keeps its content under another name; a job that only it knew is queued again.

    Raises DaemonRunning while a runner is at work here, StoreUnavailable when the logs cannot be read.
    """
    place = settings.database
    if not isinstance(place, Path):
        raise RunnerError(
            f"{place}: a queue that several homes share is not rebuilt; name an empty database in {QUEUE_VARIABLE}, "
            "and the next `start` fills it from the store"
        )
    check_home(settings.home, allow_network=False)
    with only_daemon(settings.home):
        before = jobs_of(place)
        # the store first: a database is only set aside for one that can be made
        store = open_store(settings.store_url, settings.home)
        is_new = KnownLogs(settings.home, store.properties.place).read(ROOT) is None
        open_root(store, holder=holder_of(settings.home), may_begin=is_new).refresh()
        kept = set_aside(place, Aside.REBUILT if before is not None else Aside.CORRUPT)
        forget_note(settings.home)
        with open_queue(place) as queue:
            context = context_of(settings, queue)
            restored = rebuild(context, read_clocks(), print)
            alone = [job for job in before or () if job.name not in restored]
            for job in alone:
                jobs.add_job(queue, job.spec, job.inputs, job.fingerprint, time.time(), again=True)
    old = f"; the old database is {kept.name}" if kept.is_file() else ""
    print(f"{len(restored)} from the store, {len(alone)} that the store has not heard of{old}")


def jobs_of(place: Path) -> list[Job] | None:
    """What the present database knows; None where it cannot be read."""
    if not place.is_file():
        return []
    try:
        check_integrity(place)
        with open_queue(place) as queue:
            return jobs.list_jobs(queue)
    except DatabaseCorrupt:
        return None
