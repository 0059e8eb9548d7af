"""The queue at one moment: read in one go, and anew only where somebody wrote since."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from sqlalchemy import Connection, func, select

from runner.queue import checkpoints, history, tables
from runner.queue.database import Queue
from runner.queue.rows import Attempt, Checkpoint, Job, Keeper, LogState, Regime, homes_at_work, row_of
from runner.settings import Server
from runner.states import State

T = TypeVar("T")
Rows = dict[tuple[Any, ...], T]  # in the order of the query; a row that stayed the same keeps its object

JOBS = str(select(tables.jobs).order_by(tables.jobs.c.number))
LOGS = str(select(tables.logs))
OPEN_ATTEMPTS = str(select(tables.attempts).where(tables.attempts.c.ended_at.is_(None)))
CARDS = str(select(tables.cards_held.c.gpu, tables.cards_held.c.attempt).order_by(tables.cards_held.c.gpu))
KEEPERS = str(select(tables.keepers))
UNTOLD_REGIMES = str(select(tables.regimes).where(tables.regimes.c.durable_at.is_(None)))


@dataclass(kw_only=True)
class View:
    """What tick and sync look at in every round. What few of them need is read when it is first asked for."""

    queue: Queue
    version: object
    job_rows: Rows[Job]
    log_rows: Rows[LogState]
    attempts: list[Attempt]  # those of this home that are not closed
    cards: dict[int, int]  # each with the attempt that took it last
    regimes: list[Regime]  # those that the log has not been told
    keepers: dict[str, Keeper]  # by job; none in a queue of one home
    at_work: frozenset[str]  # homes of a shared queue
    _checkpoints: dict[str, list[Checkpoint]] = field(default_factory=dict)

    @cached_property
    def jobs(self) -> list[Job]:
        """Every job, in the order in which they came."""
        return list(self.job_rows.values())

    @property
    def mine(self) -> list[Job]:
        """Those that this home looks after."""
        return [job for job in self.jobs if self.is_mine(job.name)] if self.queue.is_shared else self.jobs

    def is_mine(self, job: str) -> bool:
        return not self.queue.is_shared or (job in self.keepers and self.keepers[job].home == self.queue.home)

    def may_start(self, job: str) -> bool:
        """Whether no other home can be about to start it."""
        return not self.queue.is_shared or (self.is_mine(job) and self.keepers[job].wanted)

    @cached_property
    def by_name(self) -> dict[str, Job]:
        return {job.name: job for job in self.jobs}

    @cached_property
    def _logs(self) -> dict[str, LogState]:
        return {log.job: log for log in self.log_rows.values()}

    def gpus(self, attempt: Attempt) -> list[int]:
        """The cards of an open attempt, the one first that its trainer is known by."""
        return [attempt.gpu, *(gpu for gpu, one in self.cards.items() if one == attempt.id and gpu != attempt.gpu)]

    def log(self, job: str) -> LogState:
        return self._logs.get(job) or LogState(job=job)

    def checkpoints(self, job: str) -> list[Checkpoint]:
        if job not in self._checkpoints:
            self._checkpoints[job] = checkpoints.list_checkpoints(self.queue, job)
        return self._checkpoints[job]

    @cached_property
    def largest(self) -> dict[str, int]:
        """The size of the largest checkpoint of each job that waits."""
        table, jobs = tables.checkpoints, tables.jobs
        waits = table.c.job.in_(select(jobs.c.name).where(jobs.c.state == State.QUEUED))
        wanted = select(table.c.job, func.max(table.c.size)).where(waits, checkpoints.ALIVE).group_by(table.c.job)
        with self.queue.read() as connection:
            return {row[0]: row[1] for row in connection.execute(wanted)}

    @cached_property
    def mark(self) -> history.Mark:
        return history.mark_of(self.queue)


class Sight:
    """The view of one loop: looked for once a round, and again where this process has written in the meantime."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.look()

    def look(self) -> View:
        """With what every process has written."""
        self._written = self._queue.written
        self._view = see(self._queue)
        return self._view

    @property
    def view(self) -> View:
        return self._view if self._queue.written == self._written else self.look()


def see(queue: Queue) -> View:
    """The queue now. Each connection of the pool remembers what it saw last, and whether anybody has written since."""
    with queue.read() as connection:
        version, known = queue.backend.version(connection), connection.info.get("view")
        before, after = connection.info.get("unseen", (None, None))
        if known is not None and (known.version, version) == (before, after):
            known = connection.info["view"] = replace(known, version=version)  # its mark is read again
        elif known is None or known.version != version:
            known = connection.info["view"] = _read(queue, connection, known, version)
        return known


def _read(queue: Queue, connection: Connection, before: View | None, version: object) -> View:
    def rows(kind: type[T], query: str, known: Rows[T]) -> Rows[T]:
        # past SQLAlchemy's rows, which cost more than all of the rest
        cursor = connection.connection.dbapi_connection.execute(query)  # type: ignore[union-attr]
        names = [column[0] for column in cursor.description]
        return {row: known.get(row) or row_of(kind, dict(zip(names, row, strict=True))) for row in cursor}

    kept = {one.job: one for one in rows(Keeper, KEEPERS, {}).values()} if queue.is_shared else {}
    open_ones = list(rows(Attempt, OPEN_ATTEMPTS, {}).values())
    mine = {one.id for one in open_ones if not kept or (one.job in kept and kept[one.job].home == queue.home)}
    dbapi: Any = connection.connection.dbapi_connection
    lively = homes_at_work(queue.place.silent_seconds) if isinstance(queue.place, Server) else ""
    at_work = frozenset(name for (name,) in dbapi.execute(lively)) if lively else frozenset()
    return View(
        queue=queue,
        version=version,
        job_rows=rows(Job, JOBS, before.job_rows if before else {}),
        log_rows=rows(LogState, LOGS, before.log_rows if before else {}),
        attempts=[one for one in open_ones if one.id in mine],
        cards={gpu: attempt for gpu, attempt in dbapi.execute(CARDS) if attempt in mine},
        regimes=list(rows(Regime, UNTOLD_REGIMES, {}).values()),
        keepers=kept,
        at_work=at_work,
    )
