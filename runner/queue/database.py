"""The queue's database: open it, read and write it in transactions. What each kind of database does otherwise stands
in `sqlite` and `postgres`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, Table, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from runner.queue.sqlite import File
from runner.settings import Server
from wake2vec.contract.failpoints import failpoint


class Backend(Protocol):
    """What differs between the databases that a queue can lie in."""

    @property
    def place(self) -> Path | Server: ...

    @property
    def home(self) -> str:
        """What this home is called in a queue that several share; nothing in a queue of its own."""

    @property
    def reading(self) -> str:
        """Begins a transaction that sees one moment."""

    @property
    def writing(self) -> str: ...

    def connect(self) -> Engine: ...

    def is_set_up(self, connection: Connection) -> bool:
        """Raises HomeUnusable for tables of a newer version, or of another program."""

    def set_up(self, connection: Connection) -> None: ...

    def version(self, connection: Connection) -> object:
        """Another one when anybody has written."""

    def translated(self) -> AbstractContextManager[None]:
        """Turns the library's errors into ours, with place and remedy; those of a constraint stay what they are."""


@dataclass(kw_only=True)
class Queue:
    """An open database."""

    backend: Backend
    engine: Engine
    written: int = 0  # grows when this process has written something that a view holds

    @property
    def place(self) -> Path | Server:
        return self.backend.place

    @property
    def home(self) -> str:
        return self.backend.home

    @property
    def is_shared(self) -> bool:
        return bool(self.home)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self.backend.translated(), self.engine.connect() as connection:
            connection.execute(text(self.backend.reading))
            try:
                yield connection
            finally:
                with suppress(SQLAlchemyError):  # what went wrong before says more
                    connection.exec_driver_sql("ROLLBACK")

    @contextmanager
    def write(self, *, in_view: bool = True) -> Iterator[Connection]:
        with self.backend.translated(), self.engine.connect() as connection:
            connection.execute(text(self.backend.writing))
            before = None if in_view or self.is_shared else self.backend.version(connection)
            try:
                yield connection
                if before is not None:  # what this connection saw last is as new as it was; nobody else can write now
                    connection.info["unseen"] = (before, self.backend.version(connection))
                failpoint("database.commit")
                connection.execute(text("COMMIT"))
            except BaseException:
                with suppress(SQLAlchemyError):
                    connection.exec_driver_sql("ROLLBACK")
                raise
            self.written += in_view
            failpoint("database.committed")

    def close(self) -> None:
        self.engine.dispose()

    def __enter__(self) -> Queue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_queue(place: Path | Server) -> Queue:
    """Raises DatabaseCorrupt when a file is no sound database, QueueUnavailable when a server does not answer,
    HomeUnusable when it cannot be used or is newer."""
    backend = _backend_of(place)
    with backend.translated():
        queue = Queue(backend=backend, engine=backend.connect())
    try:
        with queue.read() as connection:
            is_set_up = backend.is_set_up(connection)
        if not is_set_up:
            with queue.write() as connection:
                backend.set_up(connection)
    except BaseException:
        queue.close()
        raise
    return queue


def _backend_of(place: Path | Server) -> Backend:
    if isinstance(place, Path):
        return File(place=place)
    from runner.queue.postgres import Database  # an extra

    return Database(place=place)


class Line(IntEnum):
    """What only one writer at a time may do, whatever the database: the numbers are locks of the server."""

    SET_UP = 0x77326B00
    ADD = 0x77326B01
    RESTORE = 0x77326B02


def stand_in(line: Line, connection: Connection) -> None:
    """Wait until nobody else is in this line; it is left with the transaction. SQLite has one writer in any case."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(int(line))))


def inserting(connection: Connection) -> Any:
    """`insert` with ON CONFLICT, which each kind of database brings itself."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as on_server

        return on_server
    from sqlalchemy.dialects.sqlite import insert

    return insert


def put(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert a row, or change these columns of the one that has its key."""
    key = [column.name for column in table.primary_key.columns]
    changed = {name: value for name, value in row.items() if name not in key}
    insert = inserting(connection)(table).values(row)
    connection.execute(insert.on_conflict_do_update(index_elements=key, set_=changed))
