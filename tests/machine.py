"""A machine that can be cut: a home and its store, the real command line, and SIGKILL for whatever lives there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests import zygote
from wake2vec.contract.failpoints import VARIABLE
from wake2vec.contract.lock import read_lock
from wake2vec.contract.manifest import saved_steps
from wake2vec.contract.rundir import RunDir

# A machine under test looks often and does not wait before it tries again.
IMPATIENT = "tick_seconds = 0.2\nsync_seconds = 0.3\nbackoff_first_seconds = 0\n"
JOBS = Path(__file__).parent.parent / "jobs"


@dataclass(kw_only=True)
class Machine:
    home: Path
    store: Path | str  # a folder, or the address of another kind of store
    environment: dict[str, str] = field(default_factory=dict)
    trainer: list[str] | None = None  # instead of the real one
    settings: str = ""  # more lines
    cpu_cards: int = 1
    folder: Path | None = None  # where its commands are given
    daemon: Any = None  # a process

    def command(self, *arguments: str) -> list[str]:
        return [
            str(Path(sys.executable).parent / "wake2vec-runner"),
            "--home",
            str(self.home),
            "--store",
            self.store if isinstance(self.store, str) else f"dir:{self.store}",
            *arguments,
        ]

    @property
    def surroundings(self) -> dict[str, str]:
        # One thread: the two cores of a small machine are shared by parallel tests.
        return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **self.environment}

    def run(self, *arguments: str, expect: int = 0) -> str:
        """Run a command to its end; fails unless it ends as expected."""
        done = self.done(*arguments)
        assert done.returncode == expect, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def done(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """A command that has ended; `more` of its environment."""
        with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile("w+b") as err:
            process = self.begin(arguments, out, err, **more)
            try:
                code = process.wait(timeout=300)
            finally:
                process.kill()
                process.wait()
            said = [stream.seek(0) or stream.read().decode() for stream in (out, err)]
        return subprocess.CompletedProcess(arguments, code, *said)

    def begin(self, arguments: Sequence[str], out: IO[bytes], err: IO[bytes], **more: str) -> Any:
        """A command in a process of its own, which leads a session."""
        environment = self.surroundings | more
        return subprocess.Popen(
            self.command(*arguments), env=environment, stdout=out, stderr=err, cwd=self.folder, start_new_session=True
        )

    @property
    def start_log(self) -> Path:
        return self.home.parent / f"{self.home.name}.start.log"

    @property
    def is_alive(self) -> bool:
        return self.daemon is not None and self.daemon.poll() is None

    @property
    def settings_file(self) -> str:
        trainer = f"trainer = {json.dumps(self.trainer)}\n" if self.trainer else ""
        return f"{IMPATIENT}cpu_cards = {self.cpu_cards}\n{trainer}{self.settings}"

    def start(self, *arguments: str) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "settings.toml").write_text(self.settings_file)
        with self.start_log.open("ab") as log:
            self.daemon = self.begin(["start", *arguments], log, log)

    def trainer_pid(self) -> int | None:
        holder = read_lock(self.home / "locks" / "gpu0.lock")
        return holder.get("pid") if holder else None

    def kill_trainer(self) -> bool:
        """SIGKILL to the trainer's whole group; False when none lives."""
        pid = self.trainer_pid()
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        return True

    def kill_daemon(self) -> bool:
        if self.daemon is None or not self.is_alive:
            return False
        self.daemon.kill()
        self.daemon.wait()
        return True

    def power_cut(self) -> bool:
        """Everything that the daemon started dies with it: it first, so that it cannot answer the trainer's death."""
        daemon = self.is_alive
        if self.daemon is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.daemon.pid, signal.SIGKILL)  # a transfer in a process of its own too
            self.daemon.wait()
            time.sleep(0.2)  # until the last of them has left its folder
        return self.kill_trainer() or daemon

    def finish(self, timeout_seconds: float = 240) -> None:
        """Start again if needed, and wait until the queue is empty."""
        if not self.is_alive:
            self.start("--until-empty")
        assert self.daemon is not None
        try:
            code = self.daemon.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.power_cut()  # a test that fails must not leave a daemon behind
            raise AssertionError(self.start_log.read_text()[-4000:]) from None
        assert code == 0, self.start_log.read_text()[-4000:]

    def wait_for_step(self, job: str, step: int, timeout_seconds: float = 120) -> None:
        """Until the job has trained that many steps, or the daemon has ended."""
        give_up = time.monotonic() + timeout_seconds
        while self.is_alive and self.step(job) < step:
            assert time.monotonic() < give_up, f"{job} did not reach step {step}: {self.start_log.read_text()[-4000:]}"
            time.sleep(0.02)

    def step(self, job: str) -> int:
        return step_reached(self.run_dir(job))

    def run_dir(self, job: str) -> RunDir:
        return RunDir(root=self.home / "runs" / job)

    def outcome(self, job: str) -> dict[str, Any]:
        """What must be the same bits however often a run was cut."""
        run = self.run_dir(job)
        newest = run.checkpoint(saved_steps(run)[0])
        rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
        measured = [
            {key: value for key, value in row.items() if key not in ("seconds", "attempt")}
            for row in rows
            if row["kind"] != "event"
        ]
        return {
            "step": newest.name,
            "trainable": sha256(newest / "trainable.safetensors"),
            "optimizer": sha256(newest / "optimizer.safetensors"),
            "final": self.final(job),
            "metrics": measured,
        }

    def final(self, job: str) -> dict[str, str]:
        return {path.name: sha256(path) for path in sorted(self.run_dir(job).final.glob("*.safetensors"))}


def step_reached(run: RunDir) -> int:
    """The last step that the ledger has a whole row of; its end is enough to look at."""
    if not run.metrics.is_file():
        return 0
    with open(run.metrics, "rb") as file:
        begin = file.seek(max(0, run.metrics.stat().st_size - 4000))
        lines = file.read().split(b"\n")[begin > 0 : -1]  # the end of a row that was cut may look like a whole one
    rows = [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]
    return max((row["step"] for row in rows if row["kind"] == "step"), default=0)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class QuickMachine(Machine):
    """A machine whose daemons, commands and trainers are forks: the same code, imported once."""

    def begin(self, arguments: Sequence[str], out: IO[bytes], err: IO[bytes], **more: str) -> zygote.Child:
        _, *words = self.command(*arguments)
        folder = str(self.folder or zygote.ROOT)
        return zygote.fork("runner", *words, out=out, err=err, environment=self.surroundings | more, folder=folder)


def quick_machine(*, trainer: list[str] | None = None, **fields: Any) -> QuickMachine:
    return QuickMachine(trainer=trainer or zygote.python("wake2vec"), **fields)


PATHS = (
    ("model", "base"), ("vocab", "lexicon"), ("data", "corpus"), ("morphemes", "groups"), ("devices", "groups"),
)  # fmt: skip


def job_file(folder: Path, name: str, *, of: str, **changes: Any) -> Path:
    """A copy of a job file in `jobs/` with some keys changed; its paths stay valid from anywhere."""
    import tomllib

    table = tomllib.loads((JOBS / f"{of}.toml").read_text())
    # what a job came to has tests of its own, and takes seconds of each job that comes to its end
    for dotted, value in {"evaluate__hopes": False, **changes}.items():
        *parts, key = dotted.split("__")
        place = table
        for part in parts:
            place = place.setdefault(part, {})
        place[key] = value
    for section, key in PATHS:
        value = table.get(section, {}).get(key)
        if isinstance(value, str) and (JOBS / value).exists():
            table[section][key] = str(JOBS / value)
    path = folder / f"{name}.toml"
    path.write_text("\n".join(_toml(table)) + "\n")
    return path


def short_text(folder: Path) -> dict[str, Any]:
    """For `job_file`, where a test is not about the text: a sixth of it, which is read in a sixth of the time."""
    path = folder / "short.txt"
    path.write_text((JOBS / "tiny" / "corpus.txt").read_text("utf-8")[:30_000], "utf-8")
    return {"data__corpus": str(path)}


def slowly_from(step: int, until: int | None = None) -> dict[str, str]:
    """An environment in which an attempt rests for a second after each of its steps from this one on, or until another.

    A short job can then be struck in its middle, however busy the machine is.
    """
    steps = [f"{step}+"] if until is None else range(step, until)
    return {VARIABLE: ",".join(f"loop.logged=stall:{one}" for one in steps)}


def _toml(table: dict[str, Any]) -> list[str]:
    plain = [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict | None)]
    for key, value in table.items():
        if isinstance(value, dict):
            plain += [f"[{key}]", *_toml(value)]
    return plain
