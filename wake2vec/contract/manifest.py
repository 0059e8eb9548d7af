"""Which checkpoints a run directory holds, and whether each is whole: the manifest is written last and says so."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from wake2vec.contract.errors import CheckpointCorrupt, InputError
from wake2vec.contract.files import FileDigest, digest_file, read_json, write_json
from wake2vec.contract.rundir import RunDir

CHECKPOINT_FILES = (
    TRAINABLE := "trainable.safetensors",
    OPTIMIZER := "optimizer.safetensors",
    STATE := "state.json",
)
ARCHIVE_FILES = ("archive.tar", "state.json")  # of a foreign command: its own checkpoint folder, packed
KNOWN_FILES = frozenset((*CHECKPOINT_FILES, *ARCHIVE_FILES))
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Says what a checkpoint holds. Written last: a checkpoint without one does not exist."""

    job: str
    step: int
    fingerprint: str
    parent: str | None  # sha256 of the manifest of the checkpoint before
    probe_loss: float | None
    files: dict[str, FileDigest]
    format: int = 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, table: dict[str, Any], place: Path) -> Manifest:
        try:
            known = {field.name: table[field.name] for field in fields(cls) if field.name in table}
            files = {str(name): FileDigest(**digest) for name, digest in known.pop("files").items()}
            manifest = cls(**known, files=files)
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointCorrupt(place, f"the manifest is not one: {error}") from error
        for name in manifest.files:
            if name not in KNOWN_FILES:  # names from a store must not leave the directory
                raise CheckpointCorrupt(place, f"the manifest names a foreign file {name!r}")
        return manifest


def write_manifest(
    folder: Path,
    names: Iterable[str],
    *,
    job: str,
    step: int,
    fingerprint: str,
    parent: str | None,
    probe_loss: float | None = None,
) -> None:
    """Say what a checkpoint holds, when all of it is there."""
    manifest = Manifest(
        job=job,
        step=step,
        fingerprint=fingerprint,
        parent=parent,
        probe_loss=probe_loss,
        files={name: digest_file(folder / name) for name in names},
    )
    write_json(folder / MANIFEST, manifest.to_json())


def step_of(folder: Path) -> int | None:
    """The step in a checkpoint folder's name; None for anything else, such as one half written."""
    match = re.fullmatch(r"checkpoint-(\d{1,12})", folder.name)
    return int(match[1]) if match and folder.is_dir() else None


def saved_steps(run: RunDir) -> list[int]:
    """Steps of the checkpoints that have a manifest, newest first; not verified."""
    found = [(step_of(folder), folder) for folder in (run.checkpoints.iterdir() if run.checkpoints.is_dir() else ())]
    return sorted((step for step, folder in found if step is not None and (folder / MANIFEST).is_file()), reverse=True)


def require_step(run: RunDir, step: object) -> int:
    """The step of a checkpoint that somebody asks for. Raises InputError with those that there are."""
    steps = saved_steps(run)
    if step in steps:
        return int(str(step))
    there = ", ".join(map(str, steps)) or "none"
    raise InputError(run.checkpoints, f"has no checkpoint of step {step}; there are: {there}", "choose one of these")


def manifest_sha256(folder: Path) -> str:
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Raises CheckpointCorrupt when there is no whole manifest, or it is another step's."""
    table = read_json(folder / MANIFEST)
    if not isinstance(table, dict):
        raise CheckpointCorrupt(folder / MANIFEST, "missing or torn")
    manifest = Manifest.from_json(table, folder / MANIFEST)
    if folder.name != f"checkpoint-{manifest.step}":
        raise CheckpointCorrupt(folder, f"holds step {manifest.step}")
    return manifest


def verify_checkpoint(folder: Path, fingerprint: str | None = None) -> Manifest:
    """Read every byte and compare; raises CheckpointCorrupt naming the file that does not fit."""
    manifest = read_manifest(folder)
    if fingerprint is not None and manifest.fingerprint != fingerprint:
        raise CheckpointCorrupt(folder, "belongs to a job with other inputs or settings")
    needed = ARCHIVE_FILES if ARCHIVE_FILES[0] in manifest.files else CHECKPOINT_FILES
    if missing := set(needed) - set(manifest.files):
        raise CheckpointCorrupt(folder, f"the manifest does not list {', '.join(sorted(missing))}")
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointCorrupt(path, "missing")
        if path.stat().st_size != expected.size:
            raise CheckpointCorrupt(path, f"{path.stat().st_size} bytes, expected {expected.size}")
        if digest_file(path) != expected:
            raise CheckpointCorrupt(path, "its content does not match the manifest")
    return manifest


def set_aside(folder: Path) -> Path:
    """Rename a checkpoint that must not be loaded, keeping it for a person to look at."""
    for number in range(1, 1000):
        target = folder.with_name(f"{folder.name}.corrupt-{number}")
        if not target.exists():
            os.replace(folder, target)
            return target
    shutil.rmtree(folder)
    return folder


def newest_verified(run: RunDir, fingerprint: str, report: list[str] | None = None) -> tuple[Path, Manifest] | None:
    """The newest checkpoint that verifies; those that do not are set aside, each named in `report`."""
    for step in saved_steps(run):
        folder = run.checkpoint(step)
        try:
            return folder, verify_checkpoint(folder, fingerprint)
        except CheckpointCorrupt as error:
            moved = set_aside(folder)
            if report is not None:
                report.append(f"{error}; set aside as {moved.name}")
    return None
