"""Start, find and end a trainer process."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runner.children import importing_safely, python, without_secrets
from runner.machine.joblog import open_log
from wake2vec.contract.errors import GpuBusy
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.lock import read_lock
from wake2vec.contract.rundir import RunDir

GPU_BUSY_EXIT = GpuBusy.exit_code  # the trainer found its card taken


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that holds a card's lock."""

    pid: int
    attempt: int
    job: str


class Launcher:
    """The trainers of this daemon. Those of an earlier daemon are known by the lock that they hold."""

    def __init__(self, command: Sequence[str] | None, locks: Path) -> None:
        self._command = list(command) if command else python("wake2vec")
        self._locks = locks
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def lock(self, gpu: int) -> Path:
        return self._locks / f"gpu{gpu}.lock"

    def start(self, run: RunDir, attempt: int, environment: Mapping[str, str]) -> int:
        """Start a trainer in its own session, out of reach of a Ctrl-C at the daemon; returns its pid."""
        failpoint("launcher.start")
        with open_log(run.log, attempt, time.time()) as log:
            child = subprocess.Popen(
                [*self._command, str(run.root)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=importing_safely(environment),
            )
        self._children[attempt] = child
        failpoint("launcher.started")
        return child.pid

    def holder(self, gpu: int) -> Holder | None:
        """Who holds the card. Alive means the lock is held: pids are reused, and an orphan may stay a zombie."""
        content = read_lock(self.lock(gpu))
        if content is None:
            return None
        # A holder that has not written yet has only just started.
        return Holder(
            pid=int(content.get("pid") or 0),
            attempt=int(content.get("attempt") or 0),
            job=str(content.get("job") or ""),
        )

    def is_alive(self, attempt: int, gpu: int) -> bool:
        """Whether a trainer works, or has been started and not yet come to its lock, for this attempt."""
        child = self._children.get(attempt)
        if child is not None and child.poll() is None:
            return True
        holder = self.holder(gpu)
        return holder is not None and holder.attempt in (attempt, 0)

    def exit_code(self, attempt: int) -> int | None:
        """Of a child of this daemon that has ended; negative for a signal; None where it cannot be known."""
        child = self._children.get(attempt)
        return child.poll() if child is not None else None

    def pid(self, attempt: int, gpu: int) -> int | None:
        child = self._children.get(attempt)
        if child is not None and child.poll() is None:
            return child.pid
        holder = self.holder(gpu)
        return holder.pid if holder is not None and holder.attempt == attempt and holder.pid else None

    def forget(self, attempt: int) -> None:
        child = self._children.pop(attempt, None)
        if child is not None:
            end_group(child.pid, signal.SIGKILL)  # workers that outlived it would keep the card
            child.wait()


def end_group(pid: int, number: signal.Signals) -> None:
    """Signal the process group that a trainer leads; one that is gone is no error."""
    if pid > 1:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)


def trainer_environment(base: Mapping[str, str], gpus: Sequence[int], cards: int) -> dict[str, str]:
    """The trainer's: no secret of the runner, its cards in sight, output unbuffered so that its log is true at once."""
    environment = without_secrets(base) | {"PYTHONUNBUFFERED": "1"}
    if cards > 1:
        # numbered as the driver does, not by speed
        environment |= {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return environment


def describe_exit(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "the trainer is gone without a result"
    if code < 0:
        with suppress(ValueError):
            return f"the trainer was ended by {signal.Signals(-code).name}"
    return f"the trainer ended with exit code {code} and no result"
