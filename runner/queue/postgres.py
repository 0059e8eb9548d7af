"""A queue in PostgreSQL, which several homes share: how it is reached and set up, and what its errors mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, PendingRollbackError

from runner.children import QUEUE_VARIABLE
from runner.discretion import hide
from runner.errors import HomeUnusable, QueueUnavailable, RunnerError
from runner.queue.database import Line, open_queue, stand_in
from runner.queue.rows import FORMAT
from runner.queue.tables import YOUNGER, metadata
from runner.settings import Server

try:
    import psycopg
    from psycopg.adapt import Dumper
    from psycopg.types.string import StrDumper
except ImportError as error:
    raise RunnerError(
        f"{QUEUE_VARIABLE}: a queue in PostgreSQL needs a package; `pip install 'wake2vec-runner[postgres]'`"
    ) from error

CONNECT_SECONDS = 10
LOCK_SECONDS = 30
ABOUT = "wake2vec_queue"  # says of which format the tables beside it are


class Text(StrDumper):
    """Without the one character that the server has no place for."""

    def dump(self, obj: str) -> Any:
        return super().dump(obj.replace("\0", "\ufffd"))


class Flag(Dumper):
    """True and False as SQLite keeps them."""

    oid = psycopg.adapters.types["int8"].oid

    def dump(self, obj: bool) -> bytes:
        return b"1" if obj else b"0"


@dataclass(frozen=True, kw_only=True)
class Database:
    place: Server
    reading = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    writing = "BEGIN"

    @property
    def home(self) -> str:
        return self.place.home

    def connect(self) -> Engine:
        patience = {
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": 2000 * CONNECT_SECONDS,
            "keepalives_idle": 10,
        }
        try:
            url = make_url(self.place.url).set(drivername="postgresql+psycopg")
        except (ArgumentError, ValueError):  # whose words hold the password
            said = f"{QUEUE_VARIABLE}: {self.place}: is no address of a database"
            raise RunnerError(f"{said}; write it as postgresql+psycopg://USER:PASSWORD@HOST/DATABASE") from None
        engine = create_engine(url, isolation_level="AUTOCOMMIT", pool_use_lifo=True, connect_args=patience)
        event.listen(engine, "connect", _prepare)
        return engine

    def is_set_up(self, connection: Connection) -> bool:
        if not (known := inspect(connection)).has_table(ABOUT):
            if known.has_table("jobs"):
                said = "holds tables of another program"
                raise HomeUnusable(f"{self.place}: {said}; name a database of the queue's own in {QUEUE_VARIABLE}")
            return False
        found = connection.exec_driver_sql(f"SELECT format FROM {ABOUT}").scalar_one()
        if found != FORMAT:
            said = f"was made by a{' newer' if found > FORMAT else 'n older'} wake2vec-runner"
            raise HomeUnusable(f"{self.place}: {said} (format {found}, this one knows {FORMAT}); install that version")
        return all(known.has_table(table.name) for table in YOUNGER)

    def set_up(self, connection: Connection) -> None:
        stand_in(Line.SET_UP, connection)
        self.is_set_up(connection)
        metadata.create_all(connection)
        connection.execute(text(f"CREATE TABLE IF NOT EXISTS {ABOUT} AS SELECT {FORMAT} AS format"))

    def version(self, connection: Connection) -> str:
        return str(connection.exec_driver_sql("SELECT pg_current_snapshot()::text").scalar_one())

    @contextmanager
    def translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except (DBAPIError, PendingRollbackError, psycopg.Error) as error:
            found = getattr(error, "orig", None) or error
            cause = hide(" ".join(str(found).split()), self.place.url)
            if isinstance(found, psycopg.OperationalError | psycopg.InterfaceError | PendingRollbackError):
                raise QueueUnavailable(
                    f"{self.place}: the shared queue cannot be reached ({cause}); start its server or mend "
                    f"{QUEUE_VARIABLE}: what trains goes on and is kept here, claims wait"
                ) from error
            if isinstance(found, psycopg.errors.InsufficientPrivilege | psycopg.errors.ReadOnlySqlTransaction):
                said = f"{cause}; let the user in {QUEUE_VARIABLE} make and write tables there"
                raise HomeUnusable(f"{self.place}: {said}") from error
            raise


@contextmanager
def reading(place: Server) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Queries of one moment, for the screen."""
    queue = open_queue(place)
    with queue, queue.read() as connection:
        yield lambda query: [dict(row) for row in connection.exec_driver_sql(query).mappings()]


def _prepare(connection: Any, _record: Any) -> None:
    connection.adapters.register_dumper(str, Text)
    connection.adapters.register_dumper(bool, Flag)
    connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
