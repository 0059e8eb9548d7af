"""Files that are whole or absent, whenever the process or the machine dies; and what is in them."""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import os
import shlex
import shutil
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from wake2vec.contract.errors import InputError
from wake2vec.contract.failpoints import failpoint

READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class FileDigest:
    size: int
    sha256: str
    md5: str


def write_atomic(path: Path, body: bytes, *, durable: bool = True) -> None:
    """Replace `path` so that a reader sees the old or the new body, also after a power cut when `durable`.

    Content, name, folder, in this order: a name may outlive a power cut without its content (Pillai et al., OSDI 2014).
    """
    make_directory(path.parent)
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


def at(table: Any, keys: Iterable[str]) -> Any:
    """What stands in a nested table below one key after the other; None where nothing does."""
    for key in keys:
        table = table.get(key) if isinstance(table, Mapping) else None
    return table


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read; a pipe or a device, which may never end or never begin, is refused as an OSError."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, "is a pipe or a device, not a file: copy its content into a file", str(path))
    return os.fdopen(handle, "rb")


def read_utf8(path: Path) -> Iterator[tuple[bytes, str]]:
    """A text in pieces of a megabyte: the bytes, and what they say. Raises InputError where they are not UTF-8."""
    decoder, done, chunk = codecs.getincrementaldecoder("utf-8")(), 0, b"-"
    with open_regular(path) as file:
        while chunk:
            chunk, held = file.read(READ_BYTES), len(decoder.getstate()[0])
            try:
                yield chunk, decoder.decode(chunk, not chunk)
            except UnicodeDecodeError as error:
                raise _not_utf8(path, done - held + error.start, error.object[error.start]) from error
            done += len(chunk)


def _not_utf8(path: Path, offset: int, byte: int) -> InputError:
    utf16 = offset == 0 and byte in (0xFE, 0xFF)
    problem = f"not UTF-8: byte 0x{byte:02x} at offset {offset}" + (" (UTF-16 by the look of it)" if utf16 else "")
    kind = "UTF-16" if utf16 else "LATIN1"
    command = f"iconv -f {kind} -t UTF-8 {shlex.quote(path.name)} > utf8.txt"
    return InputError(path, problem, f"convert it, for example: {command}")


def make_directory(path: Path) -> None:
    """`mkdir -p` whose new names survive a power cut, or a folder that was made goes with all it held."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


@contextmanager
def whole_folder(final: Path, temporary: Path | None = None) -> Iterator[Path]:
    """A new folder to fill; at the end of the block it takes the name `final`, in place of an older one.

    Whole or absent: what an error leaves is removed, and what a kill leaves goes when the folder is made again.
    """
    temporary = temporary or final.with_name(f"{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    make_directory(temporary)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    put_in_place(temporary, final)


def put_in_place(temporary: Path, final: Path) -> None:
    """Give a complete folder its name, in place of an older one; its content reaches the disk before the name does."""
    for folder, _, names in os.walk(temporary):
        for name in names:
            _sync_file(Path(folder) / name)
        sync_directory(Path(folder))
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    sync_directory(final.parent)


def _sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def size(number: float | None) -> str:
    """Bytes as a person reads them, everywhere in the same units."""
    if number is None:
        return "?"
    value = float(number)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def counted(number: int, thing: str) -> str:
    """`1 text`, `2,000 texts`."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def last_line(log: Path) -> str:
    """What a process said last."""
    try:
        with open(log, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 4096))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return "it left no log"
    return lines[-1][:300] if lines else "its log is empty"


def digest_file(path: Path) -> FileDigest:
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
    return FileDigest(size=size, sha256=sha256.hexdigest(), md5=md5.hexdigest())
