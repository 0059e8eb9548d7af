"""Checkpoints: copy the training state to the host, write it so that it is whole or absent, load it strictly."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wake2vec.contract.errors import CheckpointCorrupt
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.files import whole_folder, write_json
from wake2vec.contract.manifest import (
    CHECKPOINT_FILES,
    MANIFEST,
    OPTIMIZER,
    STATE,
    TRAINABLE,
    Manifest,
    manifest_sha256,
    write_manifest,
)
from wake2vec.contract.rundir import RunDir


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Everything needed to go on from a step, on the host, shared with nothing that still changes."""

    job: str
    step: int
    fingerprint: str
    parent: str | None
    probe_loss: float | None
    trainable: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: Mapping[str, Any]


def write_checkpoint(run: RunDir, snapshot: TrainingState) -> Path:
    """Write `checkpoints/checkpoint-<step>`; a kill at any instant leaves the checkpoints before it untouched.

    Order: files, the manifest last, all fsynced; rename; fsync of the parent. An existing checkpoint of the step is
    kept, since checkpoints never change; a folder without a manifest is none.
    """
    final = run.checkpoint(snapshot.step)
    if (final / MANIFEST).is_file():
        return final
    with whole_folder(final) as temporary:
        failpoint("checkpoint.begin")
        save_file(dict(snapshot.trainable), temporary / TRAINABLE)
        failpoint("checkpoint.trainable")
        save_file(dict(snapshot.optimizer), temporary / OPTIMIZER)
        failpoint("checkpoint.optimizer")
        (temporary / STATE).write_text(json.dumps(snapshot.state, ensure_ascii=False))
        failpoint("checkpoint.state")
        write_manifest(
            temporary,
            CHECKPOINT_FILES,
            job=snapshot.job,
            step=snapshot.step,
            fingerprint=snapshot.fingerprint,
            parent=snapshot.parent,
            probe_loss=snapshot.probe_loss,
        )
        failpoint("checkpoint.manifest")
    failpoint("checkpoint.rename")
    return final


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A verified checkpoint, read back."""

    folder: Path
    manifest: Manifest
    trainable: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]

    @property
    def sha256(self) -> str:
        return manifest_sha256(self.folder)


def read_checkpoint(folder: Path, manifest: Manifest) -> Loaded:
    """Tensors and plain JSON alone: nothing that a checkpoint holds is ever executed."""
    try:
        return Loaded(
            folder=folder,
            manifest=manifest,
            trainable=load_file(folder / TRAINABLE),
            optimizer=load_file(folder / OPTIMIZER),
            state=json.loads((folder / STATE).read_text()),
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointCorrupt(folder, f"cannot be read: {error}") from error


def load_strictly(target: Mapping[str, Tensor], source: Mapping[str, Tensor], place: Path) -> None:
    """Copy every tensor; raises CheckpointCorrupt when a name, shape or dtype is missing, new or different."""
    if set(target) != set(source):
        difference = sorted(set(target) ^ set(source))
        raise CheckpointCorrupt(place, f"holds other tensors than this job trains: {', '.join(difference[:5])}")
    for name, tensor in target.items():
        saved = source[name]
        if saved.shape != tensor.shape or saved.dtype != tensor.dtype:
            found, wanted = (tuple(saved.shape), saved.dtype), (tuple(tensor.shape), tensor.dtype)
            raise CheckpointCorrupt(place, f"{name} is {found}, expected {wanted}")
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(source[name])


class Writer:
    """Writes one checkpoint at a time beside the training thread, and remembers what the last one cost."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.saved_step: int | None = None
        self.saved_sha256: str | None = None
        self.write_seconds = 0.0

    @property
    def is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def submit(self, snapshot: TrainingState) -> None:
        """Start writing; waits for the one in flight first, so that there are never two."""
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(snapshot,), name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing is in flight; raises what stopped the writer, such as a full disk."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(self, snapshot: TrainingState) -> None:
        started = time.monotonic()
        try:
            folder = write_checkpoint(self._run, snapshot)
            self.saved_sha256 = manifest_sha256(folder)
            self.saved_step = snapshot.step
        except BaseException as error:
            self._error = error
        self.write_seconds = time.monotonic() - started


def point_to_best(run: RunDir, step: int, loss: float) -> None:
    write_json(run.best, {"step": step, "loss": loss})
