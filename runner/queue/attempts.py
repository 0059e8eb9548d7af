"""Sessions, and the attempts made in them: claim a job for a card, say how it ended, remember what fits the card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from runner.errors import IllegalTransition
from runner.queue import sharing
from runner.queue.database import Queue, put
from runner.queue.jobs import apply_change
from runner.queue.ledger import note
from runner.queue.rows import Attempt, Session, row_of
from runner.queue.tables import attempts, cards_held, jobs, plan_limits, sessions
from runner.states import Change, Outcome, Verdict

# How stale `seen_at` may be: every write is an fsync.
SEEN_SECONDS = 15.0
WENT_AWAY = "the machine went away"
LONG_AGO_SECONDS = 3600.0  # a session of another host that was not seen for so long is over


def open_session(queue: Queue, *, machine: str, platform: str, gpu: str, started_at: float, now: float) -> Session:
    """The running session of this machine, or a new one; sessions of other machines are closed where last seen.

    Of a shared queue they may be at work: there only those that have not been seen for long.
    """
    with queue.write() as connection:
        open_rows = sessions.c.ended_at.is_(None)
        found = connection.execute(select(sessions).where(open_rows, sessions.c.machine == machine)).first()
        others = update(sessions).where(open_rows, sessions.c.machine != machine)
        others = others.where(sessions.c.seen_at < now - LONG_AGO_SECONDS) if queue.is_shared else others
        connection.execute(others.values(ended_at=sessions.c.seen_at, cause=WENT_AWAY))
        if found is None:
            row = {"machine": machine, "platform": platform, "gpu": gpu, "started_at": started_at, "seen_at": now}
            number = connection.execute(insert(sessions).values(row).returning(sessions.c.id)).scalar_one()
            note(connection, now, "session", f"session {number} on {platform} {gpu}".rstrip())
            found = connection.execute(select(sessions).where(sessions.c.id == number)).one()
        return Session(**found._mapping)


def see_session(queue: Queue, session: Session, now: float, every: float = SEEN_SECONDS) -> Session:
    """Write down, a few times a minute, that the session still lives."""
    if abs(session.seen_at - now) <= every:
        return session
    with queue.write() as connection:
        connection.execute(update(sessions).where(sessions.c.id == session.id).values(seen_at=now))
        sharing.beat(connection, queue.home)
    return replace(session, seen_at=now)


def add_past_sessions(queue: Queue, lives: Mapping[str, tuple[float, float]]) -> None:
    """Sessions of other machines, by name with begin and end, as the logs tell them; known ones are left alone.

    The same life has another name in a log and in a table: it is known when a known one was at that time.
    """
    with queue.write() as connection:
        spans = select(sessions.c.started_at, func.coalesce(sessions.c.ended_at, sessions.c.seen_at))
        known = list(connection.execute(spans))
        for machine, (begin, end) in lives.items():
            if not any(started <= end and begin <= ended for started, ended in known):
                row = {"machine": machine, "platform": "", "gpu": "", "started_at": begin, "seen_at": end}
                connection.execute(insert(sessions).values(**row, ended_at=end, cause="told by the store"))


def list_sessions(queue: Queue) -> list[Session]:
    with queue.read() as connection:
        return [Session(**row._mapping) for row in connection.execute(select(sessions).order_by(sessions.c.id))]


def claim(
    queue: Queue,
    name: str,
    *,
    session: int,
    gpu: int,
    more: Sequence[int] = (),
    first_step: int,
    now: float,
    above: int = 0,
) -> Attempt:
    """Take a queued job for a card and for `more` that share it: its state and its attempt in one transaction.

    The attempt's number is above `above`, the last one that other homes gave: two lives never share a number.
    Raises IllegalTransition when the job is not queued any more, or the card or the job has a live attempt, or another
    home keeps it.
    """
    with queue.write() as connection:
        apply_change(connection, name, Change.CLAIM, now)
        sharing.require_kept(connection, name, queue.home)
        number = _next_number(connection, above)
        row = {"id": number, "job": name, "session": session, "gpu": gpu, "started_at": now, "first_step": first_step}
        try:
            connection.execute(insert(attempts).values(row))
            over = select(attempts.c.id).where(attempts.c.id == cards_held.c.attempt, attempts.c.ended_at.is_not(None))
            connection.execute(cards_held.delete().where(cards_held.c.session == session, over.exists()))
            cards = [{"session": session, "gpu": one, "attempt": number} for one in (gpu, *more)]
            connection.execute(insert(cards_held), cards)
        except IntegrityError as error:
            raise IllegalTransition(f"{name}: GPU {gpu} or the job itself has a live attempt") from error
        return row_of(Attempt, connection.execute(select(attempts).where(attempts.c.id == number)).one()._mapping)


def _next_number(connection: Connection, above: int) -> int:
    """A server's own sequence lets two homes claim at the same moment."""
    if connection.dialect.name != "postgresql":
        return max(connection.execute(select(func.coalesce(func.max(attempts.c.id), 0))).scalar_one(), above) + 1
    sequence = func.pg_get_serial_sequence("attempts", "id")
    number = int(connection.execute(select(func.nextval(sequence))).scalar_one())
    return number if number > above else int(connection.execute(select(func.setval(sequence, above + 1))).scalar_one())


def set_pid(queue: Queue, attempt: int, pid: int) -> None:
    with queue.write() as connection:
        connection.execute(update(attempts).where(attempts.c.id == attempt).values(pid=pid))


def ask_to_stop(queue: Queue, attempt: int, now: float, cause: str, outcome: Outcome | None = None) -> None:
    """Remember that the trainer was told to end, and why; with the outcome, where that is known already."""
    with queue.write() as connection:
        asked = update(attempts).where(attempts.c.id == attempt, attempts.c.asked_to_stop_at.is_(None))
        connection.execute(asked.values(asked_to_stop_at=now, cause=cause, outcome=outcome))


def close_attempt(
    queue: Queue,
    attempt: Attempt,
    verdict: Verdict,
    now: float,
    *,
    outcome: Outcome,
    last_step: int,
    place: str = "",
    cause: str = "",
    remedy: str = "",
    kept_step: int,
) -> None:
    """Write how the attempt ended and what becomes of its job, in one transaction."""
    with queue.write() as connection:
        ended = update(attempts).where(attempts.c.id == attempt.id, attempts.c.ended_at.is_(None))
        values = {"ended_at": now, "outcome": outcome, "last_step": last_step, "place": place, "remedy": remedy}
        if connection.execute(ended.values(**values, cause=cause or attempt.cause)).rowcount != 1:
            raise IllegalTransition(f"attempt {attempt.id} of {attempt.job} was closed by somebody else")
        text = f"{attempt.job} #{attempt.id}: {outcome} at step {last_step}" + (f": {cause}" if cause else "")
        note(connection, now, "ended", text, job=attempt.job)
        sharing.let_others(connection, attempt.job)
        also: dict[str, Any] = {"stalls": verdict.stalls, "kept_step": kept_step}
        if verdict.change is None:
            row = update(jobs).where(jobs.c.name == attempt.job)
            connection.execute(row.values(**also, finishing=1, wish=None, end_now=0, reason="", remedy=""))
            return
        if verdict.roll_back:
            also["rolled_back"] = 1
        also |= {"reason": verdict.reason, "remedy": verdict.remedy, "not_before": now + verdict.wait_seconds}
        apply_change(connection, attempt.job, verdict.change, now, **also)


def list_attempts(queue: Queue, name: str) -> list[Attempt]:
    with queue.read() as connection:
        rows = connection.execute(select(attempts).where(attempts.c.job == name).order_by(attempts.c.id))
        return [row_of(Attempt, row._mapping) for row in rows]


def newest_attempt(queue: Queue, name: str) -> int:
    """The number of the job's newest attempt, 0 when there was none."""
    with queue.read() as connection:
        wanted = select(func.coalesce(func.max(attempts.c.id), 0)).where(attempts.c.job == name)
        return int(connection.execute(wanted).scalar_one())


def plan_limit(queue: Queue, gpu: str, name: str) -> dict[str, Any]:
    """What is known to fit this card for this job; empty when nothing is."""
    with queue.read() as connection:
        wanted = select(plan_limits.c.plan).where(plan_limits.c.gpu == gpu, plan_limits.c.job == name)
        found = connection.execute(wanted).scalar()
        return dict(json.loads(found)) if found else {}


def remember_plan(queue: Queue, gpu: str, name: str, plan: dict[str, Any], now: float) -> None:
    with queue.write() as connection:
        put(connection, plan_limits, {"gpu": gpu, "job": name, "plan": json.dumps(plan, sort_keys=True), "at": now})
