"""Keep the texts that jobs read in the home, each named by its sha256, so that later edits change no queued job."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from runner.errors import HomeUnusable
from wake2vec.contract.errors import InputError
from wake2vec.contract.files import sync_directory


def keep_input(source: Path, sha256: str, folder: Path) -> Path:
    """Copy `source` to `folder`/`sha256`, whole or not at all; nothing is copied when it lies there already.

    Raises InputError when the file changed since it was hashed, HomeUnusable when the home cannot take it.
    """
    target = folder / sha256
    if target.is_file() and target.stat().st_size == source.stat().st_size:
        return target
    temporary = folder / f".{sha256}.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _copy(source, temporary) != sha256:
            raise InputError(source, "changed while it was read", "enqueue again when it is at rest")
        os.replace(temporary, target)
        sync_directory(folder)
    except OSError as error:
        raise HomeUnusable(
            f"{folder}: cannot keep {source.name}: {error.strerror}; make room or change --home"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return target


def _copy(source: Path, target: Path) -> str:
    digest = hashlib.sha256()
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while chunk := reader.read(1 << 20):
            digest.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    target.chmod(0o444)
    return digest.hexdigest()
