"""Kernel locks, flock(2): alive means that the lock is held, since a lock goes with its process, however that ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wake2vec.contract.errors import GpuBusy
from wake2vec.contract.failpoints import failpoint


@contextmanager
def hold_lock(path: Path, content: dict[str, Any]) -> Iterator[None]:
    """Hold a kernel lock while the process lives. Alive means the lock is held: pids are reused, and zombies have one.

    Raises GpuBusy when another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            # First shared, as an observer: what a dead holder wrote goes while nobody can be seen to hold the lock.
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.ftruncate(handle, 0)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise GpuBusy(f"{path}: held by {read_lock(path)}") from error
            raise
        failpoint("lock.taken")
        os.ftruncate(handle, 0)  # between the two, somebody else may have come and gone
        os.pwrite(handle, json.dumps(content).encode(), 0)
        yield
    finally:
        os.close(handle)


def read_lock(path: Path) -> dict[str, Any] | None:
    """What the holder wrote into the lock: nothing yet if it took it a moment ago. None when nobody holds it."""
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
