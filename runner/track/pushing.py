"""`push` by itself: what has succeeded goes to the hub, best and final, whatever else `start` does meanwhile."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from runner.children import STORE_VARIABLE, importing_safely, python
from runner.queue.database import Queue, open_queue
from runner.queue.rows import Job
from runner.queue.view import see
from runner.settings import Settings
from runner.states import State
from runner.sync.prune import best_step
from wake2vec.contract.rundir import RunDir

PUSH_VARIABLE = "WAKE2VEC_PUSH"  # USER/NAME: a job becomes USER/NAME-JOB, and USER/NAME-JOB-final where that differs
PAUSE_SECONDS = 5.0
AGAIN_SECONDS = 600.0


class Pushing:
    """A thread that pushes one result at a time; a failure is told and tried again, and training goes on."""

    def __init__(self, settings: Settings, to: str, say: Callable[[str], None]) -> None:
        self._settings, self._to, self._say = settings, to, say
        self._again_at: dict[tuple[str, str], float] = {}  # monotonic; of what is pushed: never
        self._stop = threading.Event()
        self._is_left = False
        self._child: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._work, name="push", daemon=True)

    def __enter__(self) -> Pushing:
        if self._to:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """A push that is cut goes on where it was, the next time."""
        self._stop.set()
        self._is_left = True
        if self._child is not None:
            self._child.terminate()
        if self._to:
            self._thread.join()

    def conclude(self) -> None:
        """Try once more what is not pushed yet, now that nothing trains any more."""
        if self._to:
            self._stop.set()
            self._thread.join()
            with open_queue(self._settings.database) as queue:
                self.look(queue, float("inf"))

    def _work(self) -> None:
        if self._stop.wait(PAUSE_SECONDS):
            return
        with open_queue(self._settings.database) as queue:
            self.look(queue, time.monotonic())
            while not self._stop.wait(PAUSE_SECONDS):
                self.look(queue, time.monotonic())

    def look(self, queue: Queue, now: float) -> None:
        for job in see(queue).jobs:
            if job.state is State.SUCCEEDED and not job.finishing and job.phase != "command":
                for step in self._results(job):
                    if now >= self._again_at.get((job.name, step), -1.0):
                        self._push(job.name, step)

    def _results(self, job: Job) -> tuple[str, ...]:
        is_one = best_step(RunDir(root=self._settings.runs / job.name)) == job.steps
        return ("best",) if is_one else ("best", "final")

    def _push(self, job: str, step: str) -> None:
        """In a process that is the first to go where memory runs out: it may load a whole model."""
        to = f"{self._to}-{job}" + ("-final" if step == "final" else "")
        words = ["--home", str(self._settings.home), "push", job, to, "--step", step, "--private", "--if-new"]
        self._child = subprocess.Popen(
            ["nice", *python("runner", *words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
            env=importing_safely(os.environ) | {STORE_VARIABLE: self._settings.store_url},
        )  # fmt: skip
        with suppress(OSError):
            Path(f"/proc/{self._child.pid}/oom_score_adj").write_text("1000")
        lines = self._child.communicate()[0].strip().splitlines() or [""]
        if self._child.returncode == 0:
            self._again_at[job, step] = float("inf")
            self._say(lines[-1])
        elif not self._is_left:
            self._again_at[job, step] = time.monotonic() + AGAIN_SECONDS
            why = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1])
            self._say(f"{job}: not pushed: {why.removeprefix('error: ')}; training goes on, and it is tried again")
