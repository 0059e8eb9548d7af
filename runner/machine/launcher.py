"""Start, find and end a trainer process, and have one that waits for its order with everything imported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.children import importing_safely, python, without_secrets
from runner.machine.joblog import open_log
from wake2vec.contract.errors import GpuBusy
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.lock import read_lock
from wake2vec.contract.rundir import WAIT, RunDir

CARD_VARIABLE = "CUDA_VISIBLE_DEVICES"
GPU_BUSY_EXIT = GpuBusy.exit_code  # the trainer found its card taken


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that holds a card's lock."""

    pid: int
    attempt: int
    job: str


def lock_of(locks: Path, gpu: int) -> Path:
    return locks / f"gpu{gpu}.lock"


def holders(locks: Path) -> Iterator[dict[str, Any]]:
    """What every trainer that lives says of itself in the lock of its card."""
    for path in sorted(locks.glob(lock_of(locks, 0).name.replace("0", "*"))):
        if (holder := read_lock(path)) and holder.get("job"):
            yield holder


class Launcher:
    """The trainers of this daemon. Those of an earlier daemon are known by the lock that they hold."""

    def __init__(self, command: Sequence[str] | None, locks: Path) -> None:
        self._command = list(command) if command else python("wake2vec")
        self._locks = locks
        self._can_wait = command is None
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._waiting: dict[str, subprocess.Popen[bytes]] = {}  # by the card in sight

    def lock(self, gpu: int) -> Path:
        return lock_of(self._locks, gpu)

    def start(self, run: RunDir, attempt: int, environment: Mapping[str, str]) -> int:
        """Start a trainer in its own session, out of reach of a Ctrl-C at the daemon; returns its pid."""
        failpoint("launcher.start")
        with open_log(run.log, attempt, time.time()) as log:
            child = self._told(run, environment) or subprocess.Popen(
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

    def warm(self, environment: Mapping[str, str]) -> None:
        """Have a trainer that imports everything and then waits. It ends by itself when this daemon does."""
        key = environment.get(CARD_VARIABLE, "")
        if self._can_wait and key not in self._waiting:  # one that died of its imports is not tried again
            self._waiting[key] = subprocess.Popen(
                [*self._command, WAIT],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=importing_safely(environment),
            )

    def close(self) -> None:
        """End those that wait."""
        self._can_wait = False
        while self._waiting:
            _end_waiting(self._waiting.popitem()[1])

    def _told(self, run: RunDir, environment: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
        """The one that waits, with its order; None when there is none, or it is gone."""
        waits = self._waiting.get(environment.get(CARD_VARIABLE, ""))
        if waits is None or waits.poll() is not None:
            return None
        del self._waiting[environment.get(CARD_VARIABLE, "")]
        assert waits.stdin
        try:
            with waits.stdin as orders:
                orders.write(f"{json.dumps(str(run.root))}\n".encode())
        except OSError:  # it has gone this moment
            _end_waiting(waits)
            return None
        return waits

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

    @property
    def places(self) -> int:
        """For trainers on other hosts; none where there are only the daemon's own."""
        return 0

    @property
    def places_of_a_host(self) -> int:
        """Of the host that has most of them; none where there are only the daemon's own."""
        return 0

    @property
    def card(self) -> str:
        """What a trainer works on where the daemon sees no card."""
        return "cpu"

    def require_there(self) -> None:
        """Raises ClusterLost where trainers are on other hosts, and nobody there answers."""

    def is_waiting(self, attempt: int) -> bool:
        """Whether its trainer has not begun, since no host has room for it."""
        return False

    @property
    def on_cards(self) -> bool:
        """Whether there are cards where the daemon sees none."""
        return False

    def away(self) -> tuple[str, ...]:
        """The jobs whose trainers live on other hosts, where no lock of this home shows them."""
        return ()

    def is_lost(self, attempt: int) -> bool:
        """Whether the host went away with the trainer; the daemon's own takes the daemon along."""
        return False

    def end(self, pid: int, number: signal.Signals) -> None:
        """Signal a trainer and all that it started, by what `start`, `pid` and `holder` call it."""
        end_group(pid, number)

    def forget(self, attempt: int) -> None:
        child = self._children.pop(attempt, None)
        if child is not None:
            end_group(child.pid, signal.SIGKILL)  # workers that outlived it would keep the card
            child.wait()


def _end_waiting(process: subprocess.Popen[bytes]) -> None:
    end_group(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin:
        with suppress(OSError):
            process.stdin.close()


def end_group(pid: int, number: signal.Signals) -> None:
    """Signal the process group that a trainer leads; one that is gone is no error."""
    if pid > 1:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)


def trainer_environment(base: Mapping[str, str], gpus: Sequence[int], cards: int) -> dict[str, str]:
    """The trainer's: no secret of the runner, its cards and its share of the cores, output that is written at once."""
    environment = without_secrets(base) | {"PYTHONUNBUFFERED": "1"}
    if cards > 1:
        # numbered as the driver does, not by speed
        environment |= {CARD_VARIABLE: ",".join(map(str, gpus)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        # else each process has a thread for every core, and all of them wait for one another
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // cards)))
    return environment


def describe_exit(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "the trainer is gone without a result"
    if code < 0:
        with suppress(ValueError):
            return f"the trainer was ended by {signal.Signals(-code).name}"
    return f"the trainer ended with exit code {code} and no result"
