"""Look into the queue's database without disturbing it: read-only, one moment, and no SQLAlchemy to load."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from runner.errors import DatabaseCorrupt
from runner.queue.rows import (
    Attempt,
    Checkpoint,
    Evaluation,
    Event,
    Job,
    LogState,
    Metric,
    Segment,
    Session,
    homes_at_work,
    require_known,
    row_of,
)
from runner.settings import Server
from runner.states import FINAL

EVENTS = 40
# What runs, and what last did: of these jobs the screen shows every row, of the others what decides their line.
FOCUS = f"""SELECT name FROM jobs WHERE state = 'running' UNION SELECT name FROM (
    SELECT name FROM jobs WHERE kept_step > 0 OR state IN {tuple(map(str, FINAL))}
    ORDER BY changed_at DESC, number DESC LIMIT 1) AS last"""
COUNTS = "SELECT job, kind, COUNT(*) AS number FROM events WHERE kind IN ('oom', 'regime') GROUP BY job, kind"
LAYERS = "SELECT job, text FROM events WHERE kind = 'layers' ORDER BY id"
SEGMENTS = f"SELECT * FROM segments WHERE job IN ({FOCUS}) ORDER BY number"
PIECES = "SELECT job, COUNT(*) AS planned, COUNT(done_at) AS done, MAX(last_step) AS reached FROM segments GROUP BY job"
BEST_AND_LAST = f"""SELECT * FROM evaluations WHERE job IN ({FOCUS}) OR (job, step) IN (
    SELECT one.job, MIN(one.step) FROM evaluations AS one
        JOIN (SELECT job, MIN(loss) AS loss FROM evaluations GROUP BY job) AS best USING (job, loss) GROUP BY one.job
    UNION SELECT job, MAX(step) FROM evaluations GROUP BY job) ORDER BY step"""
ELSEWHERE = "SELECT job, home FROM keepers JOIN jobs ON name = job WHERE state = 'running'"
FILES = "SELECT job, path FROM files JOIN jobs ON name = job WHERE state = 'failed'"
NEWEST = """SELECT * FROM checkpoints WHERE (job, step) IN (
    SELECT job, MAX(step) FROM checkpoints WHERE saved_at IS NOT NULL OR durable_at IS NOT NULL GROUP BY job
    UNION SELECT job, MAX(step) FROM checkpoints WHERE saved_at IS NOT NULL AND quarantined = 0 GROUP BY job
    UNION SELECT job, MAX(step) FROM checkpoints WHERE durable_at IS NOT NULL AND quarantined = 0 GROUP BY job
    ) ORDER BY step"""


@dataclass(frozen=True, kw_only=True)
class DatabaseView:
    """The database at one moment, by job where it belongs to one."""

    jobs: list[Job] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    segments: dict[str, list[Segment]] = field(default_factory=dict)  # of the jobs in focus
    pieces: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # segments planned, done; up to which step
    attempts: dict[str, list[Attempt]] = field(default_factory=dict)
    checkpoints: dict[str, list[Checkpoint]] = field(default_factory=dict)  # the newest: saved, durable, of any kind
    evaluations: dict[str, list[Evaluation]] = field(default_factory=dict)  # all in focus, else the best and the last
    metrics: dict[str, list[Metric]] = field(default_factory=dict)  # of the jobs in focus
    logs: dict[str, LogState] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)  # events by job and kind
    elsewhere: dict[str, str] = field(default_factory=dict)  # jobs that other homes of a shared queue run, and which
    files: dict[str, str] = field(default_factory=dict)  # job files, as a person queued them
    others: int = 0  # of these homes at work
    layers: list[tuple[str, str]] = field(default_factory=list)  # jobs and why a layer path was not taken


def read_database(path: Path | Server) -> DatabaseView:
    """Everything that the screen shows; empty where there is no database yet.

    Raises DatabaseCorrupt, QueueUnavailable, or HomeUnusable when a newer version wrote it.
    """
    if isinstance(path, Server):
        from runner.queue.postgres import reading

        with reading(path) as rows:
            return _rows_in_view(rows, path)
    if not path.is_file():
        return DatabaseView()
    try:
        with _reading(path) as connection:
            return _read(connection, path)
    except sqlite3.DatabaseError as error:
        if "no such table" in str(error):  # another process is about to make them
            return read_database(path.with_name("absent"))
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


def _read(connection: sqlite3.Connection, path: Path) -> DatabaseView:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    require_known(path, found)

    def rows(query: str) -> list[dict[str, Any]]:
        try:
            return [dict(row) for row in connection.execute(query)]
        except sqlite3.OperationalError as error:
            if query == FILES and "no such table" in str(error):  # of a version before this one, until the next `start`
                return []
            raise

    return _rows_in_view(rows)


def _rows_in_view(rows: Callable[[str], list[dict[str, Any]]], server: Server | None = None) -> DatabaseView:
    home = server.home if server else ""
    newest = f"SELECT id, at, job, kind, text FROM events ORDER BY id DESC LIMIT {EVENTS}"
    return DatabaseView(
        jobs=[row_of(Job, row) for row in rows("SELECT * FROM jobs ORDER BY number")],
        sessions=[Session(**row) for row in rows("SELECT * FROM sessions ORDER BY id")],
        segments=_by_job(Segment(**row) for row in rows(SEGMENTS)),
        pieces={row["job"]: (row["planned"], row["done"], row["reached"]) for row in rows(PIECES)},
        attempts=_by_job(row_of(Attempt, row) for row in rows("SELECT * FROM attempts ORDER BY id")),
        checkpoints=_by_job(row_of(Checkpoint, row) for row in rows(NEWEST)),
        evaluations=_by_job(Evaluation(**row) for row in rows(BEST_AND_LAST)),
        metrics=_by_job(Metric(**row) for row in rows(f"SELECT * FROM metrics WHERE job IN ({FOCUS}) ORDER BY step")),
        logs={row["job"]: row_of(LogState, row) for row in rows("SELECT * FROM logs")},
        events=[Event(**row) for row in reversed(rows(newest))],
        counts={(row["job"], row["kind"]): row["number"] for row in rows(COUNTS)},
        layers=[(row["job"], row["text"]) for row in rows(LAYERS)],
        elsewhere={row["job"]: row["home"] for row in rows(ELSEWHERE) if row["home"] != home} if home else {},
        files={row["job"]: row["path"] for row in rows(FILES)},
        others=sum(row["name"] != home for row in rows(homes_at_work(server.silent_seconds))) if server else 0,
    )


def _by_job(items: Any) -> dict[str, list[Any]]:
    grouped: dict[str, list[Any]] = defaultdict(list)
    for item in items:
        grouped[item.job].append(item)
    return dict(grouped)
