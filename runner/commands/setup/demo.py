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
from pathlib import Path

from runner.children import python
from runner.errors import RunnerError
from runner.jobfile.bundled import job_file
from runner.machine.launcher import lock_of
from wake2vec.contract.lock import read_lock
from wake2vec.contract.manifest import OPTIMIZER, TRAINABLE, saved_steps
from wake2vec.contract.rundir import RunDir, read_heartbeat

JOB, CUT_AT = "tiny_p1", 25
SETTINGS = "tick_seconds = 0.3\nsync_seconds = 0.5\nbackoff_first_seconds = 0\n"  # a demo does not wait


def run() -> None:
    """Exits with 1 where the two do not end in the same bits."""
    with tempfile.TemporaryDirectory(prefix="wake2vec-demo-") as folder:
        hashes = [_train(Path(folder) / name, cut=name == "cut") for name in ("uncut", "cut")]
    print("the same bits" if hashes[0] == hashes[1] else "NOT THE SAME BITS")
    sys.exit(0 if hashes[0] == hashes[1] else 1)


def _train(folder: Path, *, cut: bool) -> str:
    """The hash of the tiny job's result, of a run left alone or of one that is killed and goes on elsewhere."""
    home, log = folder / "home", folder / "log.txt"
    command = python("runner", "--home", home, "--store", f"dir:{folder / 'store'}")
    run = RunDir(root=home / "runs" / JOB)

    def start(*words: str) -> subprocess.Popen[bytes]:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "settings.toml").write_text(SETTINGS)
        with log.open("ab") as said:
            return subprocess.Popen([*command, *words], stdout=said, stderr=said, start_new_session=True)

    print(f"{JOB}, {folder.name}: training …", flush=True)
    # what the job came to is no part of the proof, and would take half of its time
    _finish(start("enqueue", str(job_file(JOB)), "--set", "evaluate.hopes=false"), log)
    daemon = start("start", "--until-empty")
    while cut and daemon.poll() is None:
        beat = read_heartbeat(run)
        if beat and beat.step >= CUT_AT and saved_steps(run):
            _lose(home, daemon)
            print(
                f"SIGKILL to trainer and daemon at step {beat.step}, their home wiped; on from the store …", flush=True
            )
            daemon, cut = start("start", "--until-empty", "--take-over"), False
        time.sleep(0.2)
    _finish(daemon, log)
    digest = result_hash(run)
    print(f"{JOB}, {folder.name}: sha256 {digest[:16]} over rows, optimizer and every loss", flush=True)
    return digest


def _finish(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.wait():
        raise RunnerError(f"the demo failed:\n{log.read_text()[-3000:]}")


def _lose(home: Path, daemon: subprocess.Popen[bytes]) -> None:
    """Everything on the machine is gone: only the store is left."""
    daemon.kill()
    daemon.wait()
    if holder := read_lock(lock_of(home / "locks", 0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(holder["pid"], signal.SIGKILL)
    shutil.rmtree(home)


def result_hash(run: RunDir) -> str:
    """sha256 over the final tensors, the optimizer's state and every measured loss."""
    newest = run.checkpoint(saved_steps(run)[0])
    digest = hashlib.sha256()
    for name in (TRAINABLE, OPTIMIZER):
        digest.update((newest / name).read_bytes())
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    losses = [[row["kind"], row["step"], row["loss"]] for row in rows if row["kind"] in ("step", "evaluation")]
    digest.update(json.dumps(losses).encode())
    return digest.hexdigest()
