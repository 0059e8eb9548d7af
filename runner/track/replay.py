"""Tell trackers what the ledger says of a job: once, or for as long as the daemon works."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from runner.errors import HomeUnusable, QueueUnavailable, TrackerBusy
from runner.queue import ledger
from runner.queue.database import Queue, open_queue
from runner.queue.view import see
from runner.settings import Settings
from runner.states import State
from runner.track.curves import Reached, points
from runner.track.trackers import Tracker, open_tracker
from wake2vec.contract.errors import GpuBusy
from wake2vec.contract.lock import hold_lock
from wake2vec.contract.tables import TrackerName

PAUSE_SECONDS = 10.0


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

    Raises TrackerBusy, and RunnerError for a package that is not here.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(hold_lock(settings.locks / f"track-{job}-{name}.lock", {"pid": os.getpid()}))
        except GpuBusy as error:
            raise TrackerBusy(f"{job}: {name} is told of it by another process already, as by `start`") from error
        tracker = open_tracker(name, job, into)
        stack.callback(tracker.close)
        yield tracker


class Following:
    """A thread that tells the trackers of each job that names some; whatever they do, training goes on."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings, self._say = settings, say
        self._open: dict[tuple[str, TrackerName], tuple[Tracker, Reached, ExitStack]] = {}
        self._failed: set[tuple[str, TrackerName]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="track", daemon=True)

    def __enter__(self) -> Following:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        is_over = False
        with ExitStack() as closing:
            queue: Queue | None = None
            while not is_over:
                is_over = self._stop.wait(PAUSE_SECONDS)  # then what came since the last look
                with suppress(QueueUnavailable, HomeUnusable):  # a full disk is waited for as a server is
                    queue = queue or closing.enter_context(open_queue(self._settings.database))
                    self.look(queue)
            for _, _, stack in self._open.values():
                stack.close()

    def look(self, queue: Queue) -> None:
        """Jobs that trained since this daemon began, and those that it finds half told."""
        for job in see(queue).mine:  # read again only when somebody has written
            for name in job.spec.track.to if job.state is not State.CANCELLED else ():
                key = (job.name, name)
                if key not in self._failed:
                    self._tell(queue, key)

    def _tell(self, queue: Queue, key: tuple[str, TrackerName]) -> None:
        job, name = key
        try:
            if key not in self._open:
                with ExitStack() as opening:
                    tracker = opening.enter_context(told(self._settings, job, name, folder(self._settings)))
                    self._open[key] = tracker, tracker.reached(), opening.pop_all()
            tracker, reached, stack = self._open[key]
            self._open[key] = tracker, replay(queue, job, tracker, reached), stack
        except (TrackerBusy, QueueUnavailable):
            return  # a person's `track`, a server that is away: the next look goes on from what was told
        except Exception as error:  # a library of somebody else's, over a network: anything can come out of it
            self._failed.add(key)
            if key in self._open:
                with suppress(Exception):
                    self._open.pop(key)[2].close()
            self._say(
                f"{job}: {name} is not told any more: {error}; training goes on, and "
                f"`wake2vec-runner track {job} --to {name}` tells it the rest"
            )
