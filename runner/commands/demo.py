"""demo: the promise, shown in a minute: a tiny job whose machine vanishes in the middle ends in the same bits."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runner.bundled import job_file
from runner.children import python
from runner.errors import RunnerError
from wake2vec.lock import read_lock
from wake2vec.manifest import saved_steps
from wake2vec.rundir import RunDir, read_heartbeat

JOB, CUT_AT = "tiny_p1", 25
# A demo looks often and does not wait before it tries again.
SETTINGS = "tick_seconds = 0.3\nsync_seconds = 0.5\nbackoff_first_seconds = 0\n"


@dataclass(kw_only=True)
class Machine:
    """A home that may vanish, and the store that stays."""

    home: Path
    store: Path
    daemon: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> list[str]:
        return python("runner", "--home", self.home, "--store", f"dir:{self.store}", *arguments)

    def run(self, *arguments: str) -> str:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RunnerError(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    @property
    def start_log(self) -> Path:
        return self.home.parent / "start.log"

    def start(self, *arguments: str) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "settings.toml").write_text(SETTINGS)
        command = self.command("start", "--until-empty", *arguments)
        with self.start_log.open("ab") as log:
            self.daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def run_dir(self, job: str) -> RunDir:
        return RunDir(root=self.home / "runs" / job)

    def lose(self, job: str) -> int:
        """SIGKILL to daemon and trainer, then nothing but the store is left; returns the step that the job was at."""
        assert self.daemon, "started before"
        beat = read_heartbeat(self.run_dir(job))
        self.daemon.kill()
        self.daemon.wait()
        holder = read_lock(self.home / "locks" / "gpu0.lock")
        if holder:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(holder["pid"], signal.SIGKILL)
        shutil.rmtree(self.home)
        return beat.step if beat else 0

    def watch(self, until: Callable[[], bool], look: Callable[[], None] = lambda: None) -> None:
        """Wait until something is true; raises RunnerError when the daemon gives up."""
        assert self.daemon, "started before"
        while not until():
            if self.daemon.poll() not in (None, 0):
                raise RunnerError(self.start_log.read_text()[-3000:])
            look()
            time.sleep(0.2)

    def reached(self, job: str, step: int) -> bool:
        beat = read_heartbeat(self.run_dir(job))
        return beat is not None and beat.step >= step and bool(saved_steps(self.run_dir(job)))

    def is_done(self) -> bool:
        assert self.daemon, "started before"
        return self.daemon.poll() == 0


def result_hash(run: RunDir) -> str:
    """sha256 over the final tensors, the optimizer's state and every measured loss."""
    newest = run.checkpoint(saved_steps(run)[0])
    digest = hashlib.sha256()
    for name in ("trainable.safetensors", "optimizer.safetensors"):
        digest.update((newest / name).read_bytes())
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    for kind in ("step", "evaluation"):
        digest.update("".join(json.dumps([row["step"], row["loss"]]) for row in rows if row["kind"] == kind).encode())
    return digest.hexdigest()


def run() -> None:
    """Exits with 1 where the two do not end in the same bits."""
    with tempfile.TemporaryDirectory(prefix="wake2vec-demo-") as folder:
        sys.exit(0 if prove(Path(folder), say=lambda text: print(text, flush=True))["equal"] else 1)


def prove(folder: Path, *, say: Callable[[str], None]) -> dict[str, str | bool]:
    """The tiny job twice: left alone, and killed in the middle. The hashes must be the same."""
    hashes = []
    for name in ("uncut", "cut"):
        machine = Machine(home=folder / name / "home", store=folder / name / "store")
        machine.run("enqueue", str(job_file(JOB)))
        say(f"{JOB}, {name}: training …")
        machine.start()
        if name == "cut":
            machine.watch(lambda machine=machine: machine.reached(JOB, CUT_AT))  # type: ignore[misc]
            step = machine.lose(JOB)
            say(f"SIGKILL to trainer and daemon at step {step}, their home wiped; start again from the store …")
            machine.start("--take-over")
        machine.watch(machine.is_done)
        hashes.append(result_hash(machine.run_dir(JOB)))
        say(f"{JOB}, {name}: sha256 {hashes[-1][:16]} over rows, optimizer and every loss")
    say("the same bits" if hashes[0] == hashes[1] else "NOT THE SAME BITS")
    return {"uncut": hashes[0], "cut": hashes[1], "equal": hashes[0] == hashes[1]}
