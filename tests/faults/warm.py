"""Real trainers from a warm process: everything heavy is imported once, each attempt is a fork that can be killed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.jobfile.inputs import keep_input
from runner.jobfile.read import read_job, resolve_inputs
from tests.machine import JOBS
from wake2vec.contract.files import read_json, write_json
from wake2vec.contract.manifest import manifest_sha256, saved_steps
from wake2vec.contract.order import Order, Source, fingerprint
from wake2vec.contract.rundir import RunDir, read_result
from wake2vec.contract.spec import JOB_SPEC, JobSpec

SECONDS_OF_NOISE = ("seconds", "attempt")


def warm_up() -> None:
    """Import what a trainer imports, so that a fork starts in milliseconds. One thread: a fork keeps no others.

    A fork draws no curve, which would take a fifth of a short job: it writes the picture that was drawn here.
    """
    import torch

    torch.set_num_threads(1)
    from wake2vec.contract.ledger import parse_ledger
    from wake2vec.show import write
    from wake2vec.show.facts import RunFacts
    from wake2vec.train.waiting import import_all

    import_all("p2")
    from wake2vec.train.ranks import team

    team.start_processes = start_forked
    picture = write.draw_curve("", RunFacts(model=""), parse_ledger([]))
    write.draw_curve = lambda *_: picture

    with suppress(ImportError):  # what has it compiles a thousand patterns for its first model
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        get_checkpoint_conversion_mapping("llama")


def start_forked(serve: Callable[..., None], **more: Any) -> Any:
    """In place of torch's `start_processes`: a trainer that is a fork has ranks that are."""
    from torch.multiprocessing.spawn import start_processes

    return start_processes(serve, **(more | {"start_method": "fork"}))


@dataclass(frozen=True, kw_only=True)
class Work:
    """A job with its inputs, ready to be ordered in any run directory below `root`."""

    root: Path
    job: JobSpec
    inputs: list[Any]
    source: Path | None = None  # a finished P1 run

    @classmethod
    def of(cls, file: str, root: Path, *, source: Path | None = None, **changes: dict[str, Any]) -> Work:
        path = JOBS / file
        table = read_job(path).model_dump()
        # what a job came to has tests of its own, and takes longer than all that is cut here
        table["evaluate"]["hopes"] = False
        for part, values in changes.items():
            table[part] |= values
        resolved = resolve_inputs(JOB_SPEC.validate_python(table), path.parent, str(path))
        for sha256, place in resolved.files.items():
            keep_input(place, sha256, root / "inputs")
        return cls(root=root, job=resolved.job, inputs=list(resolved.inputs), source=source)

    def order(self, name: str) -> RunDir:
        run = RunDir(root=self.root / name)
        run.root.mkdir(parents=True, exist_ok=True)
        number = (read_json(run.order) or {}).get("attempt", 0) + 1
        order = Order(
            job=self.job,
            fingerprint=fingerprint(self.job, self.inputs),
            attempt=number,
            inputs=self.inputs,
            inputs_folder=str(self.root / "inputs"),
            source=self._source(run) if self.source else None,
            gpu_lock=str(self.root / f"{name}.lock"),
        )
        write_json(run.order, order.model_dump(mode="json"))
        return run

    def _source(self, run: RunDir) -> Source:
        assert self.source is not None
        origin = RunDir(root=self.source)
        step = max(saved_steps(origin))
        if not run.source.is_dir():
            shutil.copytree(origin.checkpoint(step), run.source / f"checkpoint-{step}")
            shutil.copytree(origin.vocab, run.source / "vocab")
        return Source(job="p1", step=step, manifest_sha256=manifest_sha256(origin.checkpoint(step)))


def fork_attempt(
    run: RunDir, environment: dict[str, str] | None = None, before: Callable[[], None] = lambda: None
) -> int:
    """Start an attempt in a fork, which calls `before` first; returns its pid, which leads a process group."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        with suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)  # here and there: whoever is first, the group exists before it is killed
        return pid
    code = 99
    try:
        os.setpgid(0, 0)
        log = os.open(run.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(environment or {})
        from wake2vec.__main__ import main
        from wake2vec.contract import failpoints

        failpoints._hits.clear()
        before()
        code = main([str(run.root)])
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait_for(pid: int, seconds: float) -> int | None:
    """The wait status, or None when it still runs after so long."""
    give_up = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > give_up:
            return None
        time.sleep(0.002)


def kill(pid: int) -> None:
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def finish(
    work: Work, name: str, environment: dict[str, str] | None = None, *, attempts: int = 20, seconds: float = 120
) -> bool:
    """Go on until the job is completed; False when it cannot be started or goes on failing."""
    for _ in range(attempts):
        run = work.order(name)
        pid = fork_attempt(run, environment)
        if wait_for(pid, seconds) is None:
            kill(pid)
            return False
        result = read_result(run)
        if result is not None and result.outcome == "completed":
            return True
        if result is not None and result.outcome == "failed":
            return False
    return False


def outcome(run: RunDir) -> dict[str, Any]:
    """What must be equal in bits: final tensors, optimizer state, exported files, and the figures of every step."""
    step = max(saved_steps(run))
    folder = run.checkpoint(step)
    digests = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("trainable.safetensors", "optimizer.safetensors")
    }
    digests |= {
        f"final/{path.relative_to(run.final).as_posix()}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.final.rglob("*"))
        if path.is_file() and path.suffix == ".safetensors"
    }
    rows = json.loads((folder / "state.json").read_text())["rows"]
    return {"step": step, "digests": digests, "rows": figures(rows), "ledger": figures(ledger(run))}


def ledger(run: RunDir) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def figures(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without what a clock or a number of attempts decides."""
    kept = [row for row in rows if row["kind"] != "event"]
    return [{key: value for key, value in row.items() if key not in SECONDS_OF_NOISE} for row in kept]
