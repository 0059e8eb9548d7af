"""The run directory: the paths and files that runner and trainer exchange."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wake2vec.contract.files import read_json

WAIT = "--wait"  # in place of a run directory: `python -m wake2vec --wait` is told of one by a line of JSON
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # asks either process to save and end
Outcome = Literal["completed", "yielded", "oom", "diverged", "failed", "lost"]


@dataclass(frozen=True, kw_only=True)
class RunDir:
    """Where each file of a job's run lies; the only place that knows their names."""

    root: Path

    @property
    def order(self) -> Path:
        return self.root / "spec.json"

    @property
    def heartbeat(self) -> Path:
        return self.root / "heartbeat.json"

    @property
    def result(self) -> Path:
        return self.root / "result.json"

    @property
    def log(self) -> Path:
        return self.root / "trainer.log"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def best(self) -> Path:
        return self.checkpoints / "checkpoint-best"

    @property
    def metrics(self) -> Path:
        return self.root / "logs" / "metrics.jsonl"

    @property
    def proofs(self) -> Path:
        return self.root / "proofs.json"

    @property
    def rendezvous(self) -> Path:
        return self.root / "rendezvous"

    @property
    def training_log(self) -> Path:
        return self.root / "logs" / "training_log.json"

    @property
    def evaluation(self) -> Path:
        return self.root / "eval"

    @property
    def final(self) -> Path:
        return self.root / "final"

    @property
    def vocab(self) -> Path:
        return self.root / "vocab"

    @property
    def id_map(self) -> Path:
        return self.vocab / "vocab.json"

    @property
    def source(self) -> Path:
        return self.root / "source"

    def checkpoint(self, step: int, folder: str = "checkpoints") -> Path:
        """`folder`: where the run has those of another job."""
        return self.root / folder / f"checkpoint-{step}"


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """What a living trainer says of itself; a new `beat` means it moved on."""

    attempt: int
    pid: int
    beat: int
    state: str  # loading, fitting, training, evaluating, sampling, exporting
    step: int
    steps: int | None = None
    saved_step: int | None = None
    loss: float | None = None
    lr: float | None = None
    seconds_per_step: float | None = None
    tokens_per_second: float | None = None
    vram_peak_mib: int | None = None
    vram_reserved_mib: int | None = None
    vram_retries: int | None = None  # how often an allocation needed cached memory given back first
    plan: dict[str, Any] | None = None
    progress: float | None = None  # of the present state, 0 to 1, where that is known
    detail: str = ""
    start_seconds: dict[str, float] | None = None  # what the parts of the way to the first step took
    written_at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """How an attempt ended; the truth about it, unlike an exit code, which an adopted process does not give."""

    attempt: int
    outcome: Outcome
    step: int
    steps: int | None
    where: str  # setup, identity, training, evaluation, capacity, network, card, disk, full, inputs, nothing
    cause: str = ""
    remedy: str = ""
    saved_step: int | None = None
    best_step: int | None = None
    plan: dict[str, Any] | None = None
    start_seconds: dict[str, float] | None = None


def read_heartbeat(run: RunDir) -> Heartbeat | None:
    return _read(Heartbeat, run.heartbeat)


def read_result(run: RunDir) -> Result | None:
    return _read(Result, run.result)


def _read(kind: type[Any], path: Path) -> Any | None:
    table = read_json(path)
    try:
        return kind(**table) if isinstance(table, dict) else None
    except TypeError:
        return None
