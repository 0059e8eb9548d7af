"""A queue in a file of SQLite: how it is opened, checked, set aside and copied."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DatabaseError

from runner.errors import DatabaseCorrupt, HomeUnusable
from runner.queue.rows import FORMAT, require_known
from runner.queue.tables import YOUNGER, metadata

BUSY_SECONDS = 30.0


class Aside(StrEnum):
    """Why a database is put aside: part of the name that it gets."""

    CORRUPT = "corrupt"
    REBUILT = "before-rebuild"


@dataclass(frozen=True, kw_only=True)
class File:
    """Every write is one IMMEDIATE transaction, so that two writers wait instead of failing."""

    place: Path
    reading = "BEGIN"
    writing = "BEGIN IMMEDIATE"
    home = ""

    def connect(self) -> Engine:
        try:
            self.place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_private(self.place)
        except OSError as error:
            said = f"{self.place.parent}: cannot be made: {error.strerror}; choose another --home"
            raise HomeUnusable(said) from error
        engine = create_engine(
            f"sqlite:///{self.place}",
            pool_use_lifo=True,  # the connection that was used last knows what it saw last
            connect_args={"timeout": BUSY_SECONDS, "isolation_level": None, "check_same_thread": False},
        )
        event.listen(engine, "connect", _prepare)
        return engine

    def is_set_up(self, connection: Connection) -> bool:
        found = connection.execute(text("PRAGMA user_version")).scalar_one()
        require_known(self.place, found)
        known = inspect(connection)
        return bool(found == FORMAT) and all(known.has_table(table.name) for table in YOUNGER)

    def set_up(self, connection: Connection) -> None:
        metadata.create_all(connection)
        connection.execute(text(f"PRAGMA user_version = {FORMAT}"))

    def version(self, connection: Connection) -> tuple[int, int]:
        """The first number counts what others did, the second what this connection did."""
        changes = connection.connection.dbapi_connection.total_changes  # type: ignore[union-attr]
        return connection.exec_driver_sql("PRAGMA data_version").scalar_one(), changes

    @contextmanager
    def translated(self) -> Iterator[None]:
        try:
            yield
        except (DatabaseError, sqlite3.DatabaseError) as error:
            found = error.orig if isinstance(error, DatabaseError) else error
            if isinstance(found, sqlite3.IntegrityError):
                raise
            raise fault_of(self.place, found) from error


def fault_of(path: Path, found: object) -> HomeUnusable:
    """Whether the file is at fault, or what it lies on: only the first is a reason to set it aside."""
    problem = str(found)
    if not isinstance(found, sqlite3.OperationalError) or "malformed" in problem:
        return DatabaseCorrupt(path, problem)
    if "locked" in problem:
        return HomeUnusable(f"{path}: locked for {BUSY_SECONDS:.0f} s by another process; try again")
    return HomeUnusable(f"{path}: {problem}; see whether the disk is full or read-only")


def _make_private(path: Path) -> None:
    """A new file is its owner's alone; its write-ahead log takes over the mode.

    One that is there is not opened: closing it would drop every lock that SQLite holds on it in this process (POSIX),
    and let another process delete the log.
    """
    if not path.exists():
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={int(BUSY_SECONDS * 1e3)}",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def check_integrity(path: Path) -> None:
    """Raises DatabaseCorrupt when SQLite finds a fault in the file, HomeUnusable where it cannot be looked at."""
    try:
        with sqlite3.connect(path) as connection:
            answer = str(connection.execute("PRAGMA quick_check").fetchone()[0])
    except sqlite3.DatabaseError as error:
        raise fault_of(path, error) from error
    finally:
        if "connection" in locals():
            connection.close()
    if answer != "ok":
        raise DatabaseCorrupt(path, answer)


def set_aside(path: Path, why: Aside) -> Path:
    """Rename a database and its side files; the person may want to look at them."""
    target = path.with_name(f"{path.name}.{why}-{time.strftime('%Y%m%d-%H%M%S')}")
    for suffix in ("-wal", "-shm", ""):
        source = path.with_name(path.name + suffix)
        if source.exists():
            os.replace(source, target.with_name(target.name + suffix))
    return target


def copy_database(path: Path, target: Path) -> None:
    """A consistent copy while others write: SQLite's own backup, never a copy of the file."""
    source, copy = sqlite3.connect(path), sqlite3.connect(target)
    try:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.DatabaseError as error:
        raise fault_of(path, error) from error
    finally:
        copy.close()
        source.close()
