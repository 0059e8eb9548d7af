"""The home of a daemon: may it lie there, is it free, is its database sound."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runner.errors import DaemonRunning, DatabaseCorrupt, HomeUnusable
from runner.machine.session import network_file_system
from runner.queue.database import Queue, open_queue
from runner.queue.sqlite import Aside, check_integrity, set_aside
from runner.settings import DAEMON_LOCK, HOLDER, Server, Settings
from wake2vec.contract.errors import GpuBusy
from wake2vec.contract.lock import hold_lock, read_lock

Say = Callable[[str], None]


def check_home(home: Path, *, allow_network: bool, mounts: str | None = None) -> None:
    """Raises HomeUnusable where the database and the locks would not be safe."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = home / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise HomeUnusable(f"{home}: cannot be written: {error.strerror}; choose another --home") from error
    if (kind := network_file_system(home, mounts)) and not allow_network:
        raise HomeUnusable(
            f"{home}: lies on a {kind} file system, where locks and the database are not safe; use a local disk as "
            "--home and the shared one as --store dir:PATH, or insist with --allow-network-home"
        )


@contextmanager
def only_daemon(home: Path) -> Iterator[None]:
    """Raises DaemonRunning while another process has this home."""
    path = home / DAEMON_LOCK
    for attempt in range(20):  # an observer's probe may hold the lock for an instant
        try:
            with hold_lock(path, {"pid": os.getpid(), "started_at": time.time()}):
                forget_copied_name(home)
                yield
                return
        except GpuBusy as error:
            if attempt == 19:
                pid = (read_lock(path) or {}).get("pid", "unknown")
                raise DaemonRunning(
                    f"{home}: a daemon works here already (pid {pid}); `wake2vec-runner status` shows it, "
                    "Ctrl-C in its window stops it"
                ) from error
            time.sleep(0.05)


def forget_copied_name(home: Path, mounts: str | None = None) -> None:
    """A copy of a home is another home: two of one name would take each other's jobs at once, for ever.

    Only who has the home may find that out, so that no two processes of it ever differ. On network file systems a
    file's inode may change with each mount, and a copy keeps the name.
    """
    path = home / HOLDER
    with suppress(FileNotFoundError):
        _, *inode = path.read_text().splitlines() or [""]  # 0.1.0 wrote none, and trusted every copy
        if inode and inode != [str(path.stat().st_ino)] and not network_file_system(home, mounts):
            path.unlink()


def open_or_set_aside(settings: Settings, say: Say) -> Queue:
    """The queue; a corrupt file keeps its content under another name, and the rows come from the store again."""
    path = settings.database
    if isinstance(path, Server):
        return open_queue(path)
    try:
        if path.is_file():
            check_integrity(path)
        return open_queue(path)
    except DatabaseCorrupt as error:
        kept = set_aside(path, Aside.CORRUPT)
        say(f"{error}\nit is kept as {kept.name}; the queue is rebuilt from the store")
        return open_queue(path)
