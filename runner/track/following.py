"""Trackers while a daemon works: begun once a job names one, heard, and ended with it whatever they wait for."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress

from runner.children import QUEUE_VARIABLE, importing_safely, python, without_secrets
from runner.errors import HomeUnusable, QueueUnavailable
from runner.queue.database import Queue, open_queue
from runner.queue.view import see
from runner.settings import Settings
from runner.track.replay import folder

PAUSE_SECONDS = 5.0
AGAIN_SECONDS = 300.0
LEAVING = (
    (5.0, "trackers are told the last steps"),
    (25.0, "a tracker does not answer, and is left; `wake2vec-runner track JOB --to NAME` tells it the rest"),
)


class Following:
    """A thread that passes on what `telling` says; it ends when its stdin does, so no daemon leaves it behind."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings, self._say = settings, say
        self._stop = threading.Event()
        self._child: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._work, name="track", daemon=True)

    def __enter__(self) -> Following:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._hang_up()
        for seconds, said in LEAVING:
            self._thread.join(seconds)
            if not self._thread.is_alive():
                return
            self._say(said)
        if self._child is not None:
            self._child.kill()
        self._thread.join(LEAVING[0][0])

    def _work(self) -> None:
        is_over = False
        with ExitStack() as opened:
            queue: Queue | None = None
            while not is_over:
                is_over = self._stop.wait(PAUSE_SECONDS)
                with suppress(QueueUnavailable, HomeUnusable):
                    queue = queue or opened.enter_context(open_queue(self._settings.database))
                    if any(job.spec.track.to for job in see(queue).mine):
                        self._attend()
                        is_over = self._stop.wait(AGAIN_SECONDS)

    def _attend(self) -> None:
        """Returns when it has ended."""
        log = folder(self._settings) / "telling.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = without_secrets(importing_safely(os.environ))
        environment |= {QUEUE_VARIABLE: self._settings.queue_url} if self._settings.queue_url else {}
        with open(log, "wb") as errors:
            child = self._child = subprocess.Popen(
                ["nice", *python("runner.track.telling", self._settings.home)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment,
            )  # fmt: skip
        with child:
            if self._stop.is_set():
                self._hang_up()
            for line in child.stdout or ():
                self._say(line.rstrip())
        if not self._stop.is_set():
            self._say(f"trackers are not told now: their process has ended; {log} says why, and it is begun again")

    def _hang_up(self) -> None:
        if self._child is not None and self._child.stdin is not None:
            with suppress(OSError):
                self._child.stdin.close()
