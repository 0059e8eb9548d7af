"""Files that are whole or absent, whenever the process or the machine dies; and what is in them."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wake2vec.failpoints import failpoint


@dataclass(frozen=True, kw_only=True)
class FileDigest:
    size: int
    sha256: str
    md5: str


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
