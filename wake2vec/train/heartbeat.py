"""The heartbeat: what this trainer does now, written often enough to be live and seldom enough to be free."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, replace
from typing import Any

from wake2vec.contract.files import write_json
from wake2vec.contract.rundir import Heartbeat, Outcome, Result, RunDir

MIN_SECONDS_BETWEEN_WRITES = 0.25


class HeartbeatWriter:
    """Holds the present heartbeat; `beat` changes fields and writes it, at most a few times a second."""

    def __init__(self, run: RunDir, attempt: int) -> None:
        self._run = run
        self._written = 0.0
        self._part: str | None = ""  # None: the first step is done
        self._parts: dict[str, float] = {}
        self._since = 0.0
        self.now = Heartbeat(attempt=attempt, pid=os.getpid(), beat=0, state="loading", step=0, written_at=time.time())

    def beat(self, **changes: Any) -> None:
        """A sign of life. What was said of one state is not said of the next."""
        urgent = changes.get("state", self.now.state) != self.now.state
        if urgent:
            changes = {"detail": "", "progress": None, **changes}
        self.now = replace(self.now, beat=self.now.beat + 1, written_at=time.time(), **changes)
        if urgent or time.monotonic() - self._written >= MIN_SECONDS_BETWEEN_WRITES:
            self.write()

    def part(self, name: str) -> None:
        """What the way to the first step does from now on; nothing counts any more once `started` was asked."""
        now = time.monotonic()
        if self._part:
            self._parts[self._part] = self._parts.get(self._part, 0.0) + now - self._since
            self.now = replace(self.now, start_seconds={key: round(took, 2) for key, took in self._parts.items()})
        if self._part is not None:
            self._part, self._since = name, now

    def started(self) -> dict[str, float] | None:
        """The seconds of each part, once: at the first step."""
        if self._part is None:
            return None
        self.part("")
        self._part = None
        return self.now.start_seconds

    def write(self) -> None:
        # Not fsynced: a heartbeat says something only while the machine is up.
        write_json(self._run.heartbeat, asdict(self.now), durable=False)
        self._written = time.monotonic()

    def result(self, outcome: Outcome, where: str, cause: str = "", remedy: str = "") -> Result:
        """How the attempt ended, at the point that the heartbeat has reached."""
        reached = ("attempt", "step", "steps", "saved_step", "plan", "start_seconds")
        known = {name: getattr(self.now, name) for name in reached}
        return Result(outcome=outcome, where=where, cause=cause, remedy=remedy, **known)
