"""rebuild: make the database anew from the logs in the store alone."""

from __future__ import annotations

import time

from runner.context import read_clocks
from runner.daemon.main import Wanted, furnish
from runner.errors import DatabaseCorrupt
from runner.machine.home import check_home, holder_of, only_daemon
from runner.queue import jobs
from runner.queue.database import check_integrity, open_queue, set_aside
from runner.queue.rows import Job
from runner.settings import Settings
from runner.store.known import ROOT, KnownLogs
from runner.store.open import open_store
from runner.store.root import open_root
from runner.sync.job_in_store import SyncContext
from runner.sync.rebuild import rebuild


def run(settings: Settings) -> None:
    """The old database keeps its content under another name; a job that only it knew is queued again.

    Raises DaemonRunning while a runner is at work here, StoreUnavailable when the logs cannot be read.
    """
    check_home(settings.home, allow_network=False)
    with only_daemon(settings.home):
        before = jobs_of(settings)
        # the store first: a database is only set aside for one that can be made
        store = open_store(settings.store_url, settings.home)
        is_new = KnownLogs(settings.home, store.properties.place).read(ROOT) is None
        open_root(store, holder=holder_of(settings.home), may_begin=is_new).refresh()
        kept = set_aside(settings.database, time.strftime("%Y%m%d-%H%M%S"))
        with open_queue(settings.database) as queue:
            context = SyncContext(daemon=furnish(settings, Wanted(), queue))
            restored = rebuild(context, read_clocks(), print)
            alone = [job for job in before if job.name not in restored]
            for job in alone:
                jobs.add_job(queue, job.spec, job.inputs, job.fingerprint, time.time(), again=True)
    print(
        f"{len(restored)} from the store, {len(alone)} that the store has not heard of; the old database is {kept.name}"
    )


def jobs_of(settings: Settings) -> list[Job]:
    """What the present database knows; nothing when it is missing or cannot be read."""
    if not settings.database.is_file():
        return []
    try:
        check_integrity(settings.database)
        queue = open_queue(settings.database)
    except DatabaseCorrupt:
        return []
    try:
        return jobs.list_jobs(queue)
    finally:
        queue.close()
