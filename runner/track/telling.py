"""The process that tells trackers while a daemon works: whatever their libraries hang in, it can be ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from runner.errors import HomeUnusable, QueueUnavailable, RunnerError, TrackerBusy
from runner.queue.database import Queue, open_queue
from runner.queue.view import see
from runner.settings import Settings, read_settings
from runner.states import State
from runner.track.curves import Reached
from runner.track.replay import folder, replay, told, translated
from runner.track.trackers import Tracker
from wake2vec.contract.tables import TrackerName

Told = tuple[str, TrackerName]  # which job, and whom

PAUSE_SECONDS = 10.0
AGAIN_SECONDS = 300.0  # a library tries for minutes by itself
LAST = float("inf")  # the time of the last look, at which all that failed is tried again


class Telling:
    """Tells the trackers of each job that names some, and goes on where one failed."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings, self._say = settings, say
        self._open: dict[Told, tuple[Tracker, Reached, ExitStack]] = {}
        self._again_at: dict[Told, float] = {}  # monotonic, of those that failed
        self._done: set[Told] = set()  # told to the end

    def go_on(self, stop: threading.Event) -> None:
        is_over = False
        with ExitStack() as opened:
            queue: Queue | None = None
            while not is_over:
                with suppress(QueueUnavailable, HomeUnusable):
                    queue = queue or opened.enter_context(open_queue(self._settings.database))
                    self.look(queue, time.monotonic())
                is_over = stop.wait(PAUSE_SECONDS)
            if queue is not None:
                with suppress(QueueUnavailable, HomeUnusable):
                    self.look(queue, LAST)  # what came since
            self.close()

    def look(self, queue: Queue, now: float) -> None:
        """Jobs that trained since this daemon began, and those that it finds half told."""
        for job in see(queue).mine:  # read again only when somebody has written
            is_over = job.state is State.SUCCEEDED and not job.finishing
            for name in job.spec.track.to if job.state is not State.CANCELLED else ():
                key = (job.name, name)
                if not is_over:
                    self._done.discard(key)
                if key not in self._done and now >= self._again_at.get(key, -1.0):
                    self._tell(queue, key, now, is_over)

    def _tell(self, queue: Queue, key: Told, now: float, is_over: bool) -> None:
        job, name = key
        try:
            if key not in self._open:
                with ExitStack() as opening:
                    tracker = opening.enter_context(told(self._settings, job, name, folder(self._settings)))
                    self._open[key] = tracker, tracker.reached(), opening.pop_all()
            tracker, reached, stack = self._open[key]
            with translated(job, name):
                self._open[key] = tracker, replay(queue, job, tracker, reached), stack
                if is_over:
                    self._open.pop(key)[2].close()
                    self._done.add(key)
        except (TrackerBusy, QueueUnavailable, HomeUnusable):
            return  # a person's `track`, a server that is away: the next look goes on from what was told
        except RunnerError as error:
            self._close(key)  # what it holds is read back before it is told more
            if key not in self._again_at:
                goes_on = "" if now == LAST else "training goes on, it is tried again, and "
                self._say(f"{error}; {goes_on}`wake2vec-runner track {job} --to {name}` tells it the rest at any time")
            self._again_at[key] = now + AGAIN_SECONDS
        else:
            if self._again_at.pop(key, None) is not None:
                self._say(f"{job}: {name} is told again, and what it missed")

    def close(self) -> None:
        for key in list(self._open):
            self._close(key)

    def _close(self, key: Told) -> None:
        with suppress(Exception):
            if key in self._open:
                self._open.pop(key)[2].close()


def main(home: str) -> None:
    """Until stdin ends, as it does with the daemon; what libraries print goes where errors go."""
    said = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a person's Ctrl-C the daemon tells it, when it has ended
    stop = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=listen, daemon=True).start()
    Telling(read_settings(Path(home), None), lambda text: print(text, file=said)).go_on(stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
