"""A directory as a store: readable paths, and every write whole or absent at any kill or power cut."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from runner.errors import Damaged, NotStored, StoreFull, StoreLost, StoreUnavailable
from runner.store.base import Progress, Properties, Quota, Stat
from runner.store.download import download
from runner.store.names import fresh_id, safe_path
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.files import FileDigest, digest_file, sync_directory

COPY_BYTES = 4 << 20
TORN_SECONDS = 3600.0  # a temporary file this old has no living writer


class DirectoryStore:
    """The id of an object is its path under the root, so that a person finds it without this program."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._is_begun = False  # whether this process has seen the root record: from then on it is never made anew

    @property
    def properties(self) -> Properties:
        return Properties(place=str(self.root))

    def root_id(self) -> str:
        return "log/000000.json"

    def renew_root(self) -> None:
        self.delete(self.root_id())  # what is there cannot be read
        self._is_begun = False

    def new_ids(self, names: Sequence[str]) -> list[str]:
        fresh = secrets.token_hex(4)
        return [fresh_id(name, fresh) for name in names]

    def put(self, path: Path, *, id: str, name: str, digest: FileDigest, progress: Progress | None = None) -> None:
        target = safe_path(self.root, id)
        with self._translated_errors(target), self._temporary(target) as temporary:
            if not target.exists():
                _copy(path, temporary, digest, progress)
                with suppress(FileExistsError):
                    _publish(temporary, target)
            if target.stat().st_size != digest.size or digest_file(target) != digest:
                raise Damaged(f"{target}: holds other bytes than {path}; remove it by hand")

    def get(self, id: str, path: Path, *, digest: FileDigest, progress: Progress | None = None) -> None:
        source = safe_path(self.root, id)

        def chunks(start: int) -> Iterator[bytes]:
            with self._translated_errors(source), open(source, "rb") as file:
                file.seek(start)
                while chunk := file.read(COPY_BYTES):
                    yield chunk

        if not source.is_file():
            raise NotStored(f"{source}: is not in the store")
        download(chunks, path, place=str(source), digest=digest, progress=progress)

    def stat(self, id: str) -> Stat | None:
        return self._stat(safe_path(self.root, id))

    def delete(self, *ids: str) -> None:
        for target in [safe_path(self.root, id) for id in ids]:
            with self._translated_errors(target), suppress(FileNotFoundError):
                target.unlink()
                sync_directory(target.parent)
                with suppress(OSError):  # the group's folder goes with its last object
                    if target.parent != self.root:
                        target.parent.rmdir()

    def find(self, folder: str) -> Iterator[Stat]:
        for path in sorted(safe_path(self.root, folder).rglob("*")):
            if path.name.startswith("."):
                _sweep(path)
            elif found := self._stat(path):
                yield found

    def quota(self) -> Quota:
        there = next(folder for folder in (self.root, *self.root.parents) if folder.exists())
        with self._translated_errors(there):
            if not there.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
            usage = shutil.disk_usage(there)
        return Quota(free=usage.free, total=usage.total)

    def create(self, id: str, body: bytes, *, name: str) -> bool:
        target = safe_path(self.root, id)
        with self._translated_errors(target), self._temporary(target) as temporary:
            if target.exists():
                return False
            _write(temporary, body)
            try:
                _publish(temporary, target)
            except FileExistsError:
                return False
        return True

    def read(self, id: str) -> bytes | None:
        target = safe_path(self.root, id)
        with self._translated_errors(target), suppress(FileNotFoundError):
            body = target.read_bytes()
            self._is_begun = self._is_begun or id == self.root_id()
            return body
        return None

    def read_head(self, id: str) -> tuple[bytes, str] | None:
        target = safe_path(self.root, id)
        with self._translated_errors(target), suppress(FileNotFoundError), open(target, "rb") as file:
            status, body = os.fstat(file.fileno()), file.read()
            # not the content alone: the same words written again are another document
            return body, f"{status.st_ino}-{status.st_mtime_ns}-{hashlib.sha256(body).hexdigest()[:16]}"
        return None

    def silence(self, id: str) -> float | None:
        return None  # the times of files are of whichever machine wrote them

    def swap_head(self, id: str, body: bytes, tag: str | None, *, name: str) -> bool:
        target = safe_path(self.root, id)
        with (
            self._translated_errors(target),
            self._temporary(target) as temporary,
            _locked(target.parent, patience_seconds=5.0),
        ):
            current = self.read_head(id)
            if (current and current[1]) != tag:
                return False
            _write(temporary, body)
            os.replace(temporary, target)
            sync_directory(target.parent)
        return True

    def _stat(self, path: Path) -> Stat | None:
        with self._translated_errors(path), suppress(FileNotFoundError, NotADirectoryError):
            found = path.stat()
            if path.is_file():
                id = path.relative_to(self.root).as_posix()
                return Stat(id=id, size=found.st_size, created_at=found.st_mtime)
        return None

    @contextmanager
    def _temporary(self, target: Path) -> Iterator[Path]:
        """A name beside the target for bytes that do not count yet; gone afterwards whatever happens."""
        if self._is_begun and self._stat(self.root / self.root_id()) is None:
            raise StoreLost(f"{self.root}: its root record is gone: the folder was deleted, emptied or unmounted")
        _make_folder(target.parent)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _translated_errors(self, place: Path) -> Iterator[None]:
        """Say what an error of the file system means for the store."""
        try:
            yield
        except FileNotFoundError:  # of the file to store, say: no fault of the store
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreFull(f"{place}: no room left; free some space, or choose another --store") from error
            raise StoreUnavailable(f"{place}: {error.strerror}; make it writable, or choose another --store") from error


def _copy(source: Path, target: Path, digest: FileDigest, progress: Progress | None) -> None:
    """Copy and check on the way: bytes that changed since they were hashed must not become an object."""
    sha256, size = hashlib.sha256(), 0
    with open(source, "rb") as reading, open(target, "xb") as writing:
        while chunk := reading.read(COPY_BYTES):
            writing.write(chunk)
            sha256.update(chunk)
            size += len(chunk)
            if progress:
                progress(size)
        writing.flush()
        os.fsync(writing.fileno())
    if (size, sha256.hexdigest()) != (digest.size, digest.sha256):
        raise Damaged(f"{source}: is not what its manifest says; it is not uploaded")


def _write(path: Path, body: bytes) -> None:
    with open(path, "xb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())


def _publish(temporary: Path, target: Path) -> None:
    """Give complete bytes their name unless it is taken (FileExistsError), and make that durable."""
    failpoint("store.written")
    try:
        os.link(temporary, target)  # unlike a rename, refuses an existing name
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        with _locked(target.parent):  # a file system without links: the lock stands in for the link's refusal
            if target.exists():
                raise FileExistsError(target) from error
            os.rename(temporary, target)
    failpoint("store.named")
    sync_directory(target.parent)


@contextmanager
def _locked(folder: Path, *, patience_seconds: float | None = None) -> Iterator[None]:
    """Hold the folder's lock. With a patience, go on without it afterwards: its holder may be frozen, and a HEAD that
    two write at once is only a hint that comes late; the log decides."""
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if patience_seconds is None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        else:
            _try_to_lock(handle, patience_seconds)
        yield
    finally:
        os.close(handle)


def _try_to_lock(handle: int, patience_seconds: float) -> None:
    give_up = time.monotonic() + patience_seconds
    while time.monotonic() < give_up:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.01)


def _make_folder(folder: Path) -> None:
    """Make a folder whose name survives a power cut: every new entry is synced in its parent."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        try:
            folder.mkdir(exist_ok=True)
        except FileNotFoundError as error:  # some file systems, such as /proc, have no room for folders
            raise StoreUnavailable(f"{folder}: cannot be made; choose another --store") from error
        sync_directory(folder.parent)


def _sweep(path: Path) -> None:
    """Remove a temporary file that a killed writer left."""
    with suppress(OSError):
        newest = max(other.stat().st_mtime for other in path.parent.iterdir())
        if path.suffix == ".tmp" and newest - path.stat().st_mtime > TORN_SECONDS:
            path.unlink()
