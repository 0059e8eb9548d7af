"""What another home's database tells of the past, taken over into a queue whose jobs came from the logs.

The logs have said already which jobs there are, what is durable and what is done. A copy of a database only adds what
no log carries, and nothing that runs: sessions, attempts, events, the ledger up to a durable checkpoint, limits of
cards, a person's wishes. So an old, foreign or doctored copy can tell a wrong story, but take no job and move none.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Table, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from runner.errors import DatabaseCorrupt
from runner.queue.attempts import WENT_AWAY
from runner.queue.database import Queue
from runner.queue.rows import FORMAT, Session
from runner.queue.sqlite import check_integrity
from runner.queue.tables import (
    YOUNGER,
    attempts,
    checkpoints,
    evaluations,
    events,
    jobs,
    metadata,
    metrics,
    plan_limits,
    regimes,
    sessions,
)
from runner.states import Outcome, State, Wish

CARRIED_STATES = (State.QUEUED, State.HELD, State.FAILED, State.CANCELLED)
ROWS_AT_ONCE = 500
MOST_ROWS = 1 << 40

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """How far a queue's history has come: equal marks, and nothing that a log lacks has changed."""

    event: int
    durable_at: float


@dataclass(frozen=True, kw_only=True)
class LogSays:
    """What the log says of a job; beyond that its history does not count."""

    fingerprint: str
    is_done: bool
    manifests: frozenset[str]  # sha256 of every commit's
    changes: tuple[Mapping[str, Any], ...] = ()  # of its settings and steps, oldest first
    state_told_at: float = 0.0  # when the log was last told that the job is held, failed, cancelled or none of these


def check_copy(path: Path) -> None:
    """Raises DatabaseCorrupt unless the file is a sound database with the tables of this version and nothing else."""
    check_integrity(path)
    try:
        with closing(_open(path)) as copy:
            found = copy.execute("PRAGMA user_version").fetchone()[0]
            shape = _shape(copy)
    except sqlite3.DatabaseError as error:
        raise DatabaseCorrupt(path, str(error)) from error
    if found != FORMAT:
        raise DatabaseCorrupt(path, f"format {found}, this version knows {FORMAT}")
    wanted = {table.name: {column.name for column in table.columns} for table in metadata.sorted_tables}
    shape.pop("cards_taken", None)  # of a version between two
    if {table.name: wanted[table.name] for table in YOUNGER} | shape != wanted:
        raise DatabaseCorrupt(path, "other tables than a queue's")


def _open(path: Path) -> sqlite3.Connection:
    copy = sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)
    copy.row_factory = sqlite3.Row
    copy.execute("PRAGMA trusted_schema = OFF")
    return copy


def _shape(copy: sqlite3.Connection) -> dict[str, set[str]]:
    """Plain tables with their plain columns; a view or a trigger stands out as a table without columns."""
    columns = "SELECT name, hidden FROM pragma_table_xinfo(?)"
    shape = {}
    for row in copy.execute("SELECT type, name, rootpage FROM sqlite_master WHERE type != 'index'"):
        is_plain = row["type"] == "table" and row["rootpage"]
        found = copy.execute(columns, (row["name"],)) if is_plain else ()
        shape[row["name"]] = {column["name"] for column in found if not column["hidden"]}
    return shape


def mark_of(queue: Queue) -> Mark:
    with queue.read() as connection:
        event = connection.execute(select(func.coalesce(func.max(events.c.id), 0))).scalar_one()
        durable = connection.execute(select(func.coalesce(func.max(checkpoints.c.durable_at), 0.0))).scalar_one()
        return Mark(event=event, durable_at=durable)


def is_new(queue: Queue) -> bool:
    """Whether nothing has ever run from this queue, and no machine but this one has had it."""
    with queue.read() as connection:
        ran = connection.execute(select(func.count()).select_from(attempts)).scalar_one()
        lived = connection.execute(select(func.count()).select_from(sessions)).scalar_one()
        return ran == 0 and lived <= 1


def take_history(
    queue: Queue, path: Path, told: Mapping[str, LogSays], present: Session, seen_at: float = 0.0
) -> tuple[Session, list[tuple[str, Row]]]:
    """Take over what the copy tells of these jobs, before everything that this home has done itself; all or nothing.

    For a queue that `is_new`. `seen_at` is the last that the logs have seen of the home that the copy is of. Returns
    the present session, which has another number now, and changes (job, what) that no log knows yet: they are rows
    again, and to be made anew with `apply_regime`. Raises DatabaseCorrupt when the copy is of no use.
    """
    try:
        with closing(_open(path)) as copy, queue.write() as connection:
            rows = {row["name"]: dict(row) for row in copy.execute("SELECT * FROM jobs")}
            same = [name for name, one in told.items() if rows.get(name, {}).get("fingerprint") == one.fingerprint]
            if not same:
                raise DatabaseCorrupt(path, "it knows none of these jobs")
            present = _take_sessions(connection, copy, present, seen_at)
            _take_attempts(connection, copy, same)
            _take_events(connection, copy, same)
            for name in same:
                _take_ledger(connection, copy, name, told[name])
                _take_limits(connection, copy, name)
                _take_wishes(connection, rows[name], told[name])
            return present, [
                (name, change) for name in same for change in _take_unsent(connection, copy, name, told[name])
            ]
    except (IntegrityError, sqlite3.DatabaseError, TypeError, ValueError, OverflowError) as error:
        reason = getattr(error, "orig", error)  # without the statement and its rows
        raise DatabaseCorrupt(path, f"its rows are none of a queue: {reason}") from error


def _take_sessions(connection: Connection, copy: sqlite3.Connection, present: Session, seen_at: float) -> Session:
    past = [dict(row) for row in copy.execute("SELECT * FROM sessions ORDER BY id")]
    for row in past:
        if row["ended_at"] is None:
            row |= {"ended_at": max(row["seen_at"], seen_at), "cause": WENT_AWAY}
    own = dict(connection.execute(select(sessions).where(sessions.c.id == present.id)).one()._mapping)
    connection.execute(sessions.delete())
    _put(connection, sessions, past)
    own["id"] = max((row["id"] for row in past), default=0) + 1
    connection.execute(insert(sessions).values(own))
    return Session(**own)


def _take_attempts(connection: Connection, copy: sqlite3.Connection, names: Sequence[str]) -> None:
    ends = {row.id: row.ended_at for row in connection.execute(select(sessions.c.id, sessions.c.ended_at))}
    past = []
    for found in copy.execute("SELECT * FROM attempts ORDER BY id"):
        row = dict(found)
        if row["job"] not in names or row["session"] not in ends:
            continue
        if row["ended_at"] is None:  # whatever it was then, nothing of it lives here
            row["ended_at"] = max(ends[row["session"]], row["started_at"])
            row |= {"outcome": Outcome.LOST, "cause": WENT_AWAY}
        past.append(row)
    _put(connection, attempts, past)


def _take_events(connection: Connection, copy: sqlite3.Connection, names: Sequence[str]) -> None:
    """In the order of time: what was noted here until now comes after it, less what a done job's ledger told again."""
    past = [dict(row) for row in copy.execute("SELECT * FROM events ORDER BY id")]
    past = [row for row in past if row["job"] is None or row["job"] in names]
    told = {row["origin"] for row in past} - {None}
    own = [dict(row._mapping) for row in connection.execute(select(events).order_by(events.c.id))]
    own = [row for row in own if row["origin"] not in told]
    connection.execute(events.delete())
    _put(connection, events, past)
    newest = connection.execute(select(func.coalesce(func.max(events.c.id), 0))).scalar_one()
    _put(connection, events, [row | {"id": newest + place} for place, row in enumerate(own, start=1)])


def _take_ledger(connection: Connection, copy: sqlite3.Connection, name: str, told: LogSays) -> None:
    """Rows that a checkpoint covers which both the copy and the log call durable; a done job has brought its own."""
    query = "SELECT step, manifest_sha256 FROM checkpoints WHERE job = ? AND durable_at IS NOT NULL"
    durable = [row["step"] for row in copy.execute(query, (name,)) if row["manifest_sha256"] in told.manifests]
    if told.is_done or not durable:
        return
    for table in (metrics, evaluations):
        query = f"SELECT * FROM {table.name} WHERE job = ? AND step <= ?"
        _put(connection, table, [dict(row) for row in copy.execute(query, (name, max(durable)))])


def _take_limits(connection: Connection, copy: sqlite3.Connection, name: str) -> None:
    rows = [dict(row) for row in copy.execute("SELECT * FROM plan_limits WHERE job = ?", (name,))]
    _put(connection, plan_limits, [row for row in rows if isinstance(json.loads(row["plan"]), dict)])


def _take_wishes(connection: Connection, row: Row, told: LogSays) -> None:
    """How a person left the job, unless the log was told something since."""
    values = {key: row[key] for key in ("created_at", "stalls", "kept_step", "rolled_back")}
    state = _wanted_state(row)
    if state is not None and not told.is_done and row["changed_at"] >= told.state_told_at:
        reason = "" if state is State.QUEUED else row["reason"] or f"{state} on request"
        values |= {"state": state, "reason": reason, "remedy": row["remedy"]}
    connection.execute(update(jobs).where(jobs.c.name == row["name"]).values(values))


def _wanted_state(row: Row) -> State | None:
    """A job that ran has no state of its own here: it is queued, or what the person asked it to be."""
    if row["state"] == State.RUNNING:
        return {Wish.HOLD: State.HELD, Wish.CANCEL: State.CANCELLED}.get(row["wish"])
    return State(row["state"]) if row["state"] in CARRIED_STATES else None


def _take_unsent(connection: Connection, copy: sqlite3.Connection, name: str, told: LogSays) -> list[Row]:
    """What the log was not told when the copy was made, and has not been told since."""
    query = "SELECT job, from_step, change, at, durable_at FROM regimes WHERE job = ? ORDER BY id"
    in_log, rows, changes = list(told.changes), [], []
    for row in map(dict, copy.execute(query, (name,))):
        change = dict(json.loads(row["change"])) | {"from_step": row["from_step"]}
        if change in in_log:  # each word of the log stands for one: a setting may go back to what it was
            in_log.remove(change)
        elif row.pop("durable_at") is None:
            rows.append(row)
            changes.append(change)
    _put(connection, regimes, rows)
    return changes


def _put(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    if any(row.get("id", 0) > MOST_ROWS for row in rows):  # a number that leaves none for what comes after
        raise ValueError(f"more than {MOST_ROWS:,} {table.name}")
    for start in range(0, len(rows), ROWS_AT_ONCE):
        connection.execute(insert(table), list(rows[start : start + ROWS_AT_ONCE]))
