"""The texts that jobs read: looked at once, and kept in the home by their sha256, so that later edits change no job."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

from runner.errors import HomeUnusable
from wake2vec.contract.errors import InputError
from wake2vec.contract.files import read_utf8, sync_directory
from wake2vec.contract.order import InputFile

MAX_INPUT_BYTES = 2 << 30  # inputs are copied and go to the store

Role = Literal["corpus", "lexicon", "morphemes", "groups", "devices", "control"]


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


def text_input(path: Path, role: Role) -> InputFile:
    """Read a text once: its hash, and that it is UTF-8 and says something. Raises InputError."""
    digest, size, blank = hashlib.sha256(), 0, True
    try:
        for chunk, text in read_utf8(path):
            size += len(chunk)
            if size > MAX_INPUT_BYTES:
                raise InputError(path, f"larger than {MAX_INPUT_BYTES >> 30} GiB", "split it or take a part")
            digest.update(chunk)
            blank = blank and not text.strip("\ufeff \t\r\n")
    except OSError as error:
        raise InputError(path, os_problem(error), where_to_look(path)) from error
    if blank:
        raise InputError(path, "empty" if size == 0 else "holds nothing but blanks")
    return InputFile(role=role, name=path.name, sha256=digest.hexdigest(), size=size)


def os_problem(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "is a folder, not a file"
    return f"cannot be read: {error.strerror}"


def where_to_look(path: Path) -> str:
    """Point to the README of the folder where something is missing."""
    note = path.parent / "README.md"
    return f"{note} says what belongs there" if note.is_file() and not path.exists() else ""
