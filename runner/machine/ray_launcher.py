"""Trainers as actors of a Ray cluster, each on a host with cards free; run directories lie where all hosts see them.

An actor outlives the daemon, whose next life finds it by its name. Where a host is lost, so are its actors: a lost
session. What is asked of `Launcher` is answered here by the cluster instead of by kernel locks and pids.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from runner.children import importing_safely, python, without_secrets
from runner.errors import ClusterLost, RunnerError
from runner.machine.joblog import open_log
from runner.machine.launcher import Holder, Launcher, end_group
from wake2vec.contract.files import read_json, write_json
from wake2vec.contract.rundir import RunDir

try:
    import ray
    from ray.exceptions import ActorUnavailableError, RayError
    from ray.util import list_named_actors
except ImportError as error:
    raise RunnerError("--engine ray: needs a package; `pip install 'wake2vec-runner[ray]'`") from error

NAMESPACE = "wake2vec-runner"
CONNECT_SECONDS = 10.0
ASK_SECONDS = 1.0  # a host that is slower lives until Ray says that it does not
NAMES_SECONDS = 0.5
PATIENCE = {  # Ray's own, unless a person has chosen
    "RAY_gcs_server_port_wait_time_s": "1",  # one try: where another program listens, twenty take a quarter of an hour
}
GONE = (RayError, ValueError)  # Ray raises the second for a name that it does not know


class Trainer:
    """The actor: it starts the trainer on the host that Ray chose, and answers for it."""

    def __init__(self, root: str, attempt: int, command: list[str] | None, wanted: str) -> None:
        run, here = RunDir(root=Path(root)), version("wake2vec-runner")
        self._child: subprocess.Popen[bytes] | None = None
        self.refusal: tuple[str, str] | None = None
        host = socket.gethostname()
        if here != wanted:
            said = f"host {host} has wake2vec-runner {here}, the daemon {wanted}"
            self.refusal = said, "install the same version on every host"
        elif not run.order.is_file():
            said = f"host {host} does not see {root}"
            self.refusal = said, "name a folder that every host sees as `shared` in settings.toml"
        else:
            environment = importing_safely(without_secrets(os.environ)) | {"PYTHONUNBUFFERED": "1"}
            with open_log(run.log, attempt, time.time()) as log:
                self._child = subprocess.Popen(
                    [*(command or python("wake2vec")), root],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                    env=environment, preexec_fn=_die_with_its_actor,
                )  # fmt: skip

    def ended(self) -> tuple[int | None, tuple[str, str] | None]:
        """Its exit code, None while it lives; and why it was not started, with the remedy."""
        return (self._child.poll() if self._child else 1), self.refusal

    def end(self, number: int) -> None:
        if self._child:
            end_group(self._child.pid, signal.Signals(number))


def _look_for(address: str | None, seconds: float) -> None:
    """Ray itself would wait for minutes, then end the process. Raises OSError where nothing listens."""
    host, _, port = (address or os.environ.get("RAY_ADDRESS", "")).removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=seconds).close()


def _die_with_its_actor() -> None:
    """On a host that Ray has given up, nobody may go on writing to the run directory."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class RayLauncher(Launcher):
    def __init__(self, command: list[str] | None, home: str, address: str | None) -> None:
        self._program, self._home = command, home
        self._runs: dict[int, RunDir] = {}
        self._actors: dict[int, Any] = {}
        self._asked: dict[int, Any] = {}
        self._heard: set[int] = set()  # attempts whose actors have answered
        self._codes: dict[int, int | None] = {}
        self._forgotten: set[int] = set()
        self._names: tuple[float, list[str]] = (-1e9, [])
        try:
            _look_for(address, CONNECT_SECONDS)
            os.environ |= PATIENCE | os.environ
            ray.init(address=address or "auto", namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
            self._head = ray.get_runtime_context().gcs_address
        except (OSError, RuntimeError, ValueError, AssertionError, RayError) as error:
            cause = " ".join(str(error).split())[:300]
            raise RunnerError(
                f"--address {address or 'auto'}: no Ray cluster answers there ({cause}); `ray start --head` starts "
                "one, and every host needs the same Python and Ray"
            ) from error

    def require_there(self) -> None:
        """Asked before all else in a round: whatever asks Ray itself would be stuck, and then end the process."""
        try:
            _look_for(self._head, ASK_SECONDS)
        except OSError as error:
            raise ClusterLost(
                f"{self._head}: the head of the Ray cluster does not answer ({error}); start it again, then this: what "
                "was trained goes on from its newest checkpoint"
            ) from error

    @property
    def _unit(self) -> str:
        return "GPU" if ray.cluster_resources().get("GPU") else "CPU"

    @property
    def on_cards(self) -> bool:
        return self._unit == "GPU"

    @property
    def places(self) -> int:
        """In the whole cluster, as it is now."""
        return int(ray.cluster_resources().get(self._unit, 0))

    @property
    def places_of_a_host(self) -> int:
        there = (host["Resources"] for host in ray.nodes() if host["Alive"])
        return int(max((found.get(self._unit, 0) for found in there), default=0))

    @property
    def card(self) -> str:
        kinds = [key.partition(":")[2] for key in ray.cluster_resources() if key.startswith("accelerator_type:")]
        return kinds[0] if kinds and self._unit == "GPU" else f"a {self._unit} of Ray"

    def lock(self, gpu: int) -> Path:
        """On the host's own disk: that no two trainers share a place is Ray's to see to."""
        return Path(tempfile.gettempdir()) / f"wake2vec-{self._home}-{gpu}.lock"

    def _name(self, gpu: int, attempt: int, job: str) -> str:
        return f"{self._home}/{gpu}/{attempt}/{job}"

    def start(self, run: RunDir, attempt: int, environment: Mapping[str, str]) -> int:
        order = read_json(run.order) or {}
        gpu = int(Path(order["gpu_lock"]).stem.rpartition("-")[2])
        cards = 1 + len(order["more_locks"])
        wanted = {"num_gpus": cards} if self._unit == "GPU" else {"num_cpus": cards}
        actor = ray.remote(Trainer).options(
            name=self._name(gpu, attempt, run.root.name), lifetime="detached", max_restarts=0, **wanted
        )
        self._runs[attempt] = run
        self._actors[attempt] = actor.remote(str(run.root), attempt, self._program, version("wake2vec-runner"))
        return attempt

    def warm(self, environment: Mapping[str, str]) -> None:
        """Nobody knows yet on which host it would have to wait."""

    def close(self) -> None:
        ray.shutdown()

    def _living(self) -> dict[int, Holder]:
        """By the place that each has."""
        at, names = self._names
        if time.monotonic() - at > NAMES_SECONDS:
            names = [str(name) for name in list_named_actors() if str(name).startswith(f"{self._home}/")]
            self._names = time.monotonic(), names
        parts = [(int(gpu), int(attempt), job) for _, gpu, attempt, job in (name.split("/") for name in names)]
        return {
            gpu: Holder(pid=attempt, attempt=attempt, job=job)
            for gpu, attempt, job in parts
            if attempt not in self._forgotten
        }

    def holder(self, gpu: int) -> Holder | None:
        return self._living().get(gpu)

    def away(self) -> tuple[str, ...]:
        with suppress(*GONE):
            return tuple(one.job for one in self._living().values())
        return ()

    def _actor(self, attempt: int) -> Any:
        """Raises ValueError where there is none any more."""
        if attempt not in self._actors:
            names = (name for name in list_named_actors() if name.split("/")[::2][:2] == [self._home, str(attempt)])
            self._actors[attempt] = ray.get_actor(next(names, ""))
        return self._actors[attempt]

    def is_alive(self, attempt: int, gpu: int) -> bool:
        if attempt in self._codes:
            return False
        try:
            if attempt not in self._asked:
                self._asked[attempt] = self._actor(attempt).ended.remote()
            if not ray.wait([self._asked[attempt]], timeout=ASK_SECONDS)[0]:
                return True
            code, refusal = ray.get(self._asked.pop(attempt))
        except ActorUnavailableError:  # Ray says so as long as it does not know
            return True
        except GONE as error:
            self._codes[attempt] = None
            if attempt in self._runs and attempt not in self._heard:
                self._refuse(attempt, f"its actor could not begin ({' '.join(str(error).split())[:300]})", "")
            return False
        self._heard.add(attempt)
        if code is None:
            return True
        self._codes[attempt] = code
        if refusal and attempt in self._runs:
            self._refuse(attempt, *refusal)
        return False

    def _refuse(self, attempt: int, cause: str, remedy: str) -> None:
        told = {"attempt": attempt, "outcome": "failed", "where": "setup", "step": 0, "steps": None}
        write_json(self._runs[attempt].result, told | {"cause": cause, "remedy": remedy})

    def is_waiting(self, attempt: int) -> bool:
        return attempt in self._runs and attempt not in self._heard

    def is_lost(self, attempt: int) -> bool:
        """Whether its host went away with it."""
        return attempt in self._codes and self._codes[attempt] is None

    def exit_code(self, attempt: int) -> int | None:
        return self._codes.get(attempt)

    def pid(self, attempt: int, gpu: int) -> int | None:
        """Here its attempt's number: pids are of hosts."""
        return attempt if self.is_alive(attempt, gpu) else None

    def end(self, pid: int, number: signal.Signals) -> None:
        with suppress(*GONE):
            if pid in self._heard or (pid not in self._runs and number is not signal.SIGKILL):
                self._actor(pid).end.remote(int(number))
                return
            ray.kill(self._actor(pid))  # it waits for a host, and would for as long as there is none
            self._codes[pid] = -int(number)

    def forget(self, attempt: int) -> None:
        with suppress(*GONE):
            ray.wait([self._actor(attempt).end.remote(int(signal.SIGKILL))], timeout=ASK_SECONDS)  # workers of its own
            ray.kill(self._actor(attempt))
        self._forgotten.add(attempt)
        for table in (self._actors, self._asked, self._runs, self._codes):
            table.pop(attempt, None)
