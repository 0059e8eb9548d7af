"""The run directory: paths and files that runner and trainer exchange, each written so that it is whole or absent."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from wake2vec.errors import CheckpointCorrupt, GpuBusy
from wake2vec.failpoints import failpoint

Outcome = Literal["completed", "yielded", "oom", "diverged", "failed"]
CHECKPOINT_FILES = ("trainable.safetensors", "optimizer.safetensors", "state.json")
ARCHIVE_FILES = ("archive.tar", "state.json")  # of a foreign command: its own checkpoint folder, packed
MANIFEST = "manifest.json"


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

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"checkpoint-{step}"


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """What a living trainer says of itself; a new `beat` means it moved on."""

    attempt: int
    pid: int
    beat: int
    state: str  # loading, fitting, training, saving, evaluating, exporting
    step: int
    steps: int | None
    saved_step: int | None
    loss: float | None = None
    lr: float | None = None
    seconds_per_step: float | None = None
    tokens_per_second: float | None = None
    vram_peak_mib: int | None = None
    vram_reserved_mib: int | None = None
    plan: dict[str, Any] | None = None
    progress: float | None = None  # of the present state, 0 to 1, where that is known
    detail: str = ""
    written_at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """How an attempt ended; the truth about it, unlike an exit code, which an adopted process does not give."""

    attempt: int
    outcome: Outcome
    step: int
    steps: int | None
    where: str  # setup, training, evaluation, capacity
    cause: str = ""
    remedy: str = ""
    saved_step: int | None = None
    best_step: int | None = None
    plan: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class FileDigest:
    size: int
    sha256: str
    md5: str


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
            if name not in (*CHECKPOINT_FILES, *ARCHIVE_FILES):  # names from a store must not leave the directory
                raise CheckpointCorrupt(place, f"the manifest names a foreign file {name!r}")
        return manifest


def write_atomic(path: Path, body: bytes, *, durable: bool = True) -> None:
    """Replace `path` so that a reader sees the old or the new body, also after a power cut when `durable`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(body)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        failpoint("write.written")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    failpoint("write.renamed")
    if durable:
        sync_directory(path.parent)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    body = json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    write_atomic(path, body.encode(), durable=durable)


def read_json(path: Path) -> Any | None:
    """The value, or None when the file is absent or not whole JSON."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, NotADirectoryError):
        return None


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


def sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest_file(path: Path) -> FileDigest:
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
    return FileDigest(size=size, sha256=sha256.hexdigest(), md5=md5.hexdigest())


def step_of(folder: Path) -> int | None:
    """The step in a checkpoint folder's name; None for anything else, such as one half written."""
    match = re.fullmatch(r"checkpoint-(\d{1,12})", folder.name)
    return int(match[1]) if match and folder.is_dir() else None


def saved_steps(run: RunDir) -> list[int]:
    """Steps of the checkpoints that have a manifest, newest first; not verified."""
    found = [(step_of(folder), folder) for folder in (run.checkpoints.iterdir() if run.checkpoints.is_dir() else ())]
    return sorted((step for step, folder in found if step is not None and (folder / MANIFEST).is_file()), reverse=True)


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


@contextmanager
def hold_lock(path: Path, content: dict[str, Any]) -> Iterator[None]:
    """Hold a kernel lock while the process lives. Alive means the lock is held: pids are reused, and zombies have one.

    Raises GpuBusy when another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise GpuBusy(f"{path}: held by {read_lock(path)}") from error
            raise
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(content).encode(), 0)
        yield
    finally:
        os.close(handle)


def read_lock(path: Path) -> dict[str, Any] | None:
    """What the holder of the lock wrote into it, or None when nobody holds it."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        # A shared probe: two observers do not disturb each other, and a trainer that starts now retries.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        body = os.pread(handle, 1 << 16, 0)
        try:
            return dict(json.loads(body))
        except ValueError:
            return {}
    else:
        return None
    finally:
        os.close(handle)
