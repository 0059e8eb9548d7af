"""Receive an object into a file: resumed, hashed, and put in place only when every byte is right."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from runner.errors import Damaged
from runner.store.base import Progress
from wake2vec.contract.files import FileDigest, sync_directory

HASH_BYTES = 4 << 20


def download(
    chunks: Callable[[int], Iterator[bytes]],
    path: Path,
    *,
    place: str,
    digest: FileDigest,
    progress: Progress | None = None,
) -> None:
    """`chunks(start)` yields the object's bytes from there on. Raises Damaged when they are wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with open(part, "ab+") as file:
        sha256 = hashlib.sha256()
        found = _take_up(file.fileno(), sha256, digest.size)
        size = _receive(chunks, file, sha256, found, digest.size, progress)
        if found and not _fits(digest, size, sha256):  # what an earlier call left was rotten: once more from the start
            file.truncate(0)
            sha256 = hashlib.sha256()
            size = _receive(chunks, file, sha256, 0, digest.size, progress)
        file.flush()
        os.fsync(file.fileno())
    if not _fits(digest, size, sha256):
        part.unlink()
        raise Damaged(f"{place}: the store returned other bytes than were put there ({size}, not {digest.size})")
    os.replace(part, path)
    sync_directory(path.parent)


def ahead(piece: Callable[[int], bytes], starts: Sequence[int], *, at_once: int) -> Iterator[bytes]:
    """The pieces in order, while the next ones are on their way: never more than `at_once` of them in memory."""
    if at_once == 1 or len(starts) == 1:
        yield from map(piece, starts)
        return
    coming: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(at_once) as pool:
        try:
            for start in starts:
                coming.append(pool.submit(piece, start))
                if len(coming) == at_once:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _receive(
    chunks: Callable[[int], Iterator[bytes]],
    file: BinaryIO,
    sha256: hashlib._Hash,
    size: int,
    wanted: int,
    progress: Progress | None,
) -> int:
    """Append what is missing; returns the size that was reached."""
    for chunk in chunks(size) if size < wanted else ():
        file.write(chunk)
        file.flush()  # a killed process leaves what it had received
        sha256.update(chunk)
        size += len(chunk)
        if progress:
            progress(size)
    return size


def _fits(digest: FileDigest, size: int, sha256: hashlib._Hash) -> bool:
    return (size, sha256.hexdigest()) == (digest.size, digest.sha256)


def _take_up(handle: int, sha256: hashlib._Hash, size: int) -> int:
    """Hash what an earlier call left, and drop what goes beyond the object."""
    os.ftruncate(handle, min(os.fstat(handle).st_size, size))
    position = 0
    while chunk := os.pread(handle, HASH_BYTES, position):
        sha256.update(chunk)
        position += len(chunk)
    return position
