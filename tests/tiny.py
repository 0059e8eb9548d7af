"""The tiny job inside this process: orders, material and a prepared model, without a runner."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from runner.jobfile.read import read_job, resolve_inputs
from tests.machine import JOBS, job_file
from wake2vec.contract.manifest import manifest_sha256, saved_steps
from wake2vec.contract.order import Order, Source, fingerprint
from wake2vec.contract.plan import Plan
from wake2vec.contract.rundir import RunDir
from wake2vec.phases.base import Prepared
from wake2vec.phases.inputs import JobInputs, read_inputs
from wake2vec.phases.table import PHASES
from wake2vec.train.attempt import start_loop
from wake2vec.train.heartbeat import HeartbeatWriter
from wake2vec.train.loop import Loop
from wake2vec.train.stopping import Stop

QUICK = {"evaluate__max_windows": 4, "evaluate__samples": 0, "train__batch": 4, "data__seq_len": 32}
WHOLE = {"data__corpus": str(JOBS / "tiny" / "corpus.txt")}
EXCERPT = 24_000  # characters of the text: enough for these few steps, and cut, counted and split in no time


def order_for(
    folder: Path, *, of: str = "tiny_p1", name: str = "tiny", source: RunDir | None = None, **changes: Any
) -> Order:
    """An order for a changed copy of a tiny job, its inputs copied; `source` is the run that a P2 builds on."""
    path = job_file(folder, name, of=of, **{**QUICK, "data__corpus": str(excerpt(folder)), **changes})
    found = resolve_inputs(read_job(path), JOBS, str(path))
    inputs = folder / "inputs"
    inputs.mkdir(exist_ok=True)
    if not (tokens := folder / "tokens").is_symlink():
        tokens.symlink_to(tokenised(), target_is_directory=True)
    for sha256, place in found.files.items():
        if place.is_file():
            shutil.copy(place, inputs / sha256)
    run = RunDir(root=folder / "runs" / name)
    run.root.mkdir(parents=True, exist_ok=True)
    return Order(
        job=found.job,
        fingerprint=fingerprint(found.job, list(found.inputs)),
        attempt=1,
        inputs=list(found.inputs),
        inputs_folder=str(inputs),
        source=None if source is None else adopt(source, run),
        gpu_lock=str(folder / "gpu0.lock"),
    )


@cache
def tokenised() -> Path:
    """Where the texts of all jobs of this process lie as tokens, each under the hash of what it was made from."""
    folder = Path(tempfile.mkdtemp(prefix="tokens-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def excerpt(folder: Path) -> Path:
    path = folder / "excerpt.txt"
    if not path.exists():
        path.write_text((JOBS / "tiny" / "corpus.txt").read_text(encoding="utf-8")[:EXCERPT], encoding="utf-8")
    return path


def adopt(source: RunDir, run: RunDir) -> Source:
    """Put the newest checkpoint of a P1 where its P2 looks for it, as the runner does."""
    step = saved_steps(source)[0]
    shutil.copytree(source.checkpoint(step), run.source / f"checkpoint-{step}")
    shutil.copytree(source.vocab, run.source / "vocab")
    return Source(job="p1", step=step, manifest_sha256=manifest_sha256(source.checkpoint(step)))


def run_of(folder: Path, name: str = "tiny") -> RunDir:
    return RunDir(root=folder / "runs" / name)


def material_for(folder: Path, order: Order, name: str = "tiny") -> JobInputs:
    return read_inputs(run_of(folder, name), order, lambda text: None)


def prepared_for(material: JobInputs) -> Prepared:
    return PHASES[material.job.phase].prepare(material)


def loop_for(material: JobInputs, stop: Stop | None = None) -> Loop:
    stop = stop or Stop()
    pulse = HeartbeatWriter(material.run, material.order.attempt)
    return start_loop(material, prepared_for(material), stop, pulse, lambda text: None)


def plan(micro_batch: int, block_splits: int = 1) -> Plan:
    return Plan(micro_batch=micro_batch, layers="autograd", block_splits=block_splits)
