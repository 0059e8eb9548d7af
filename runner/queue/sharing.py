"""Several homes on one queue: which of them live, and which one looks after a job.

A job has one keeper: the home that queued it, then the one that took it last, since what is saved of it lies there. A
home that has a card free takes jobs that nobody wants; its tick and its sync loop see to those that it keeps, and to
no others. A queue of one home has no keepers, and every function here leaves it alone.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, and_, exists, extract, func, or_, select, update

from runner.errors import IllegalTransition, RunnerError
from runner.queue.database import Queue, inserting, put
from runner.queue.rows import Attempt, row_of
from runner.queue.tables import attempts, homes, jobs, keepers, logs
from runner.states import State

CLOCK = extract("epoch", func.now())  # the server's: those of the hosts may differ


@dataclass(kw_only=True)
class Watch:
    """Which homes live, by this home's own clock: while the server was away nobody could be heard."""

    silent_seconds: float
    _seen: dict[str, tuple[float, float]] = field(default_factory=dict)  # the beat of a home, and since when
    _looked_at: float = -1e9

    def living(self, queue: Queue, monotonic: float) -> list[str]:
        with queue.read() as connection:
            beats = {row.name: float(row.seen_at) for row in connection.execute(select(homes))}
        if monotonic - self._looked_at > self.silent_seconds / 2:
            self._seen = {}
        self._looked_at = monotonic
        known = {name: since for name, (beat, since) in self._seen.items() if beats.get(name) == beat}
        self._seen = {name: (beat, known.get(name, monotonic)) for name, beat in beats.items()}
        return [name for name, (_, since) in self._seen.items() if monotonic - since < self.silent_seconds]


def enter(queue: Queue, version: str, silent_seconds: float) -> None:
    """Be at work on the queue. Raises RunnerError where another home is so with another version of the program."""
    with queue.write() as connection:
        other = _working(silent_seconds).where(homes.c.version != version, homes.c.name != queue.home)
        row = connection.execute(other).first()
        if row is not None:
            raise RunnerError(
                f"{queue.place}: {row.name} is at work on this queue with wake2vec-runner {row.version}, and this is "
                f"{version}; install the same version on both hosts"
            )
        put(connection, homes, {"name": queue.home, "version": version, "seen_at": 0.0})
        beat(connection, queue.home)


def at_work(connection: Connection, silent_seconds: float) -> list[str]:
    """The homes whose daemons live, as far as the server has heard of them; of a queue of one home none is known."""
    on_server = connection.dialect.name == "postgresql"
    return [row.name for row in connection.execute(_working(silent_seconds))] if on_server else []


def _working(silent_seconds: float) -> Select[Any]:
    return select(homes).where(homes.c.version != "", homes.c.seen_at > CLOCK - silent_seconds)


def leave(queue: Queue) -> None:
    with queue.write() as connection:
        connection.execute(update(keepers).where(keepers.c.home == queue.home).values(wanted=False))
        connection.execute(update(homes).where(homes.c.name == queue.home).values(version=""))


def beat(connection: Connection, home: str) -> None:
    if home:
        connection.execute(update(homes).where(homes.c.name == home).values(seen_at=CLOCK))


def keep(connection: Connection, job: str, home: str) -> None:
    """A home that queues a job has its texts: no other one can begin it before the store has them."""
    if home:
        put(connection, keepers, {"job": job, "home": home, "wanted": False})


def take(
    queue: Queue, count: int, now: float, *, living: Collection[str], longest_wait: float, without: Collection[str] = ()
) -> list[str]:
    """Become the keeper of up to `count` jobs that could start now, in their order; returns their names.

    Rows that another home takes at this moment are passed over. Where both read before either wrote, the second write
    sees the first one's row, and is none.
    """
    source, own = jobs.alias("source"), keepers.c.home == queue.home
    is_over = source.c.name == jobs.c.after, source.c.state == State.SUCCEEDED
    is_loose = or_(keepers.c.wanted == 0, keepers.c.home.not_in(living))
    is_idle = or_(logs.c.epoch.is_(None), keepers.c.home.not_in(living))
    free = or_(keepers.c.job.is_(None), own, and_(logs.c.created_at.is_not(None), is_loose, is_idle))
    wanted = (
        select(jobs.c.name)
        .select_from(jobs.outerjoin(keepers, keepers.c.job == jobs.c.name).outerjoin(logs, logs.c.job == jobs.c.name))
        .where(jobs.c.state == State.QUEUED, free, ~and_(own, keepers.c.wanted == 1), jobs.c.name.not_in(without))
        .where(or_(jobs.c.not_before <= now, jobs.c.not_before > now + longest_wait))
        .where(or_(jobs.c.after.is_(None), jobs.c.kept_step > 0, exists(select(source.c.name).where(*is_over))))
        .order_by(jobs.c.priority.desc(), jobs.c.number)
        .limit(count)
        .with_for_update(of=jobs, skip_locked=True)
    )
    with queue.write(in_view=False) as connection:
        rows = [{"job": name, "home": queue.home, "wanted": True} for name in connection.scalars(wanted)]
        if not rows:
            return []
        mine = inserting(connection)(keepers).values(rows)
        mine = mine.on_conflict_do_update(
            index_elements=["job"], set_={"home": queue.home, "wanted": True}, where=or_(own, is_loose)
        )
        taken = list(connection.scalars(mine.returning(keepers.c.job)))
        connection.execute(update(logs).where(logs.c.job.in_(taken)).values(problem="", remedy="", fenced=False))
        return taken


def let_go(queue: Queue, names: Collection[str]) -> None:
    """Other homes may take these."""
    with queue.write() as connection:
        for name in names:
            let_others(connection, name)


def let_others(connection: Connection, job: str) -> None:
    connection.execute(update(keepers).where(keepers.c.job == job).values(wanted=False))


def require_kept(connection: Connection, job: str, home: str) -> None:
    if home and connection.scalar(select(keepers.c.home).where(keepers.c.job == job)) != home:
        raise IllegalTransition(f"{job}: another home has taken it")


def left_behind(queue: Queue, living: Collection[str]) -> tuple[list[tuple[str, Attempt]], list[str]]:
    """What homes that are gone have not ended: attempts, each with its home, and jobs trained but not sent."""
    gone = and_(keepers.c.home != queue.home, keepers.c.home.not_in(living))
    lives = attempts.c.ended_at.is_(None)
    running = select(keepers.c.home, attempts).join(keepers, keepers.c.job == attempts.c.job).where(lives, gone)
    unsent = select(jobs.c.name).join(keepers, keepers.c.job == jobs.c.name)
    unsent = unsent.where(jobs.c.state == State.RUNNING, jobs.c.finishing == 1, gone)
    with queue.read() as connection:
        rows = [dict(row) for row in connection.execute(running).mappings()]
        return [(row.pop("home"), row_of(Attempt, row)) for row in rows], list(connection.scalars(unsent))
