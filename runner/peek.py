"""Look into the queue's database without disturbing it: read-only, one moment, and no SQLAlchemy to load."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from runner.errors import DatabaseCorrupt, HomeUnusable
from runner.queue.rows import Attempt, Checkpoint, Evaluation, Event, Job, LogState, Metric, Segment, Session
from runner.states import Outcome, State, Wish

KNOWN_FORMAT = 1
EVENTS = 40
# What runs, and what last did.
FOCUS = """SELECT name FROM jobs WHERE state = 'running'
    UNION SELECT name FROM (SELECT name FROM jobs ORDER BY changed_at DESC LIMIT 1)"""
COUNTS = "SELECT job, kind, COUNT(*) AS number FROM events WHERE kind IN ('oom', 'regime') GROUP BY job, kind"


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The database at one moment, by job where it belongs to one."""

    jobs: list[Job] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    segments: dict[str, list[Segment]] = field(default_factory=dict)
    attempts: dict[str, list[Attempt]] = field(default_factory=dict)
    checkpoints: dict[str, list[Checkpoint]] = field(default_factory=dict)
    evaluations: dict[str, list[Evaluation]] = field(default_factory=dict)
    trained: dict[str, int] = field(default_factory=dict)  # the last step in the ledger
    metrics: dict[str, list[Metric]] = field(default_factory=dict)  # of the jobs in focus alone: there may be many rows
    logs: dict[str, LogState] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)  # events by job and kind


def peek(path: Path) -> Moment:
    """Everything that the screen shows; empty where there is no database yet.

    Raises DatabaseCorrupt, or HomeUnusable when a newer version wrote it.
    """
    if not path.is_file():
        return Moment(
            jobs=[],
            sessions=[],
            segments={},
            attempts={},
            checkpoints={},
            evaluations={},
            metrics={},
            logs={},
            events=[],
        )
    try:
        with _reading(path) as connection:
            return _read(connection, path)
    except sqlite3.DatabaseError as error:
        if "no such table" in str(error):  # another process is about to make them
            return peek(path.with_name("absent"))
        raise DatabaseCorrupt(path, str(error)) from error


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    place = f"file:{quote(str(path))}?mode=ro"
    try:
        connection = sqlite3.connect(place, uri=True, timeout=5.0, isolation_level=None)
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError:
        # A folder that we may not write has no place for the side files of a live reader.
        connection = sqlite3.connect(f"{place}&immutable=1", uri=True, isolation_level=None)
    with closing(connection):
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        yield connection


def _read(connection: sqlite3.Connection, path: Path) -> Moment:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > KNOWN_FORMAT:
        raise HomeUnusable(f"{path}: written by a newer wake2vec-runner (format {found}); update this one")

    def rows(query: str) -> list[dict[str, Any]]:
        return [dict(row) for row in connection.execute(query)]

    alive = "saved_at IS NOT NULL OR durable_at IS NOT NULL"
    newest = f"SELECT id, at, job, kind, text FROM events ORDER BY id DESC LIMIT {EVENTS}"
    return Moment(
        jobs=[_to_job(row) for row in rows("SELECT * FROM jobs ORDER BY number")],
        sessions=[Session(**row) for row in rows("SELECT * FROM sessions ORDER BY id")],
        segments=_by_job(Segment(**row) for row in rows("SELECT * FROM segments ORDER BY number")),
        attempts=_by_job(_to_attempt(row) for row in rows("SELECT * FROM attempts ORDER BY id")),
        checkpoints=_by_job(
            Checkpoint(**{**row, "quarantined": bool(row["quarantined"])})
            for row in rows(f"SELECT * FROM checkpoints WHERE {alive} ORDER BY step")
        ),
        evaluations=_by_job(Evaluation(**row) for row in rows("SELECT * FROM evaluations ORDER BY step")),
        trained={row["job"]: row["step"] for row in rows("SELECT job, MAX(step) AS step FROM metrics GROUP BY job")},
        metrics=_by_job(Metric(**row) for row in rows(f"SELECT * FROM metrics WHERE job IN ({FOCUS}) ORDER BY step")),
        logs={row["job"]: LogState(**{**row, "fenced": bool(row["fenced"])}) for row in rows("SELECT * FROM logs")},
        events=[Event(**row) for row in reversed(rows(newest))],
        counts={(row["job"], row["kind"]): row["number"] for row in rows(COUNTS)},
    )


def _by_job(items: Any) -> dict[str, list[Any]]:
    grouped: dict[str, list[Any]] = defaultdict(list)
    for item in items:
        grouped[item.job].append(item)
    return dict(grouped)


def _to_job(row: dict[str, Any]) -> Job:
    row["spec_json"], row["inputs_json"] = row.pop("spec"), row.pop("inputs")
    row["state"] = State(row["state"])
    row["wish"] = Wish(row["wish"]) if row["wish"] else None
    flags = {name: bool(row[name]) for name in ("end_now", "finishing", "rolled_back")}
    return Job(**{**row, **flags})


def _to_attempt(row: dict[str, Any]) -> Attempt:
    return Attempt(**{**row, "outcome": Outcome(row["outcome"]) if row["outcome"] else None})
