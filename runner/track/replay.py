"""Tell a tracker what the ledger says of a job: whatever it does not hold already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from runner.discretion import hide
from runner.errors import RunnerError, TrackerBusy, TrackerFailed
from runner.queue import ledger
from runner.queue.database import Queue
from runner.settings import Settings
from runner.track.curves import Reached, points
from runner.track.trackers import Tracker, open_tracker
from wake2vec.contract.errors import GpuBusy
from wake2vec.contract.lock import hold_lock
from wake2vec.contract.tables import TrackerName

SAID_AT_MOST = 300


def folder(settings: Settings) -> Path:
    """Where trackers that keep files keep them."""
    return settings.home / "track"


def replay(queue: Queue, job: str, tracker: Tracker, reached: Reached) -> Reached:
    """Add what the tracker does not hold; returns how far it knows the job now."""
    metrics = ledger.list_metrics(queue, job, since_step=reached.train)
    evaluations = ledger.list_evaluations(queue, job)
    found = list(points(metrics, evaluations, reached))
    if found:
        tracker.add(found)
    return Reached(
        train=max([reached.train, *(row.step for row in metrics)]),
        evaluation=max([reached.evaluation, *(row.step for row in evaluations)]),
    )


@contextmanager
def told(settings: Settings, job: str, name: TrackerName, into: Path) -> Iterator[Tracker]:
    """The tracker, for one process at a time: two would each add what the other has not told yet.

    Raises TrackerBusy, TrackerFailed, and RunnerError for a package that is not here.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(hold_lock(settings.locks / f"track-{job}-{name}.lock", {"pid": os.getpid()}))
        except GpuBusy as error:
            raise TrackerBusy(f"{job}: {name} is told of it by another process already, as by `start`") from error
        stack.enter_context(translated(job, name))
        yield stack.enter_context(closing(open_tracker(name, job, into)))


@contextmanager
def translated(job: str, name: TrackerName) -> Iterator[None]:
    """A library of somebody else's, over a network: anything can come out of it, an address with a password too."""
    try:
        yield
    except RunnerError:
        raise
    except Exception as error:
        said = " ".join(hide(str(error)).split())[:SAID_AT_MOST] or type(error).__name__
        raise TrackerFailed(f"{job}: {name} does not take what it is told: {said}") from error
