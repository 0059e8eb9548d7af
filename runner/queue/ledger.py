"""What happened, step by step: metrics, evaluations, regimes and events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, insert, select, update

from runner.queue.database import Queue, inserting, put
from runner.queue.rows import Evaluation, Event, Metric, Regime, row_of
from runner.queue.tables import evaluations, events, metrics, regimes

_KINDS: dict[str, Table] = {"step": metrics, "evaluation": evaluations}


def note(
    connection: Connection, now: float, kind: str, said: str, *, job: str | None = None, origin: str | None = None
) -> None:
    """Add an event; one that has the `origin` of an earlier one is that one."""
    row = {"at": now, "job": job, "kind": kind, "text": said, "origin": origin}
    connection.execute(inserting(connection)(events).values(row).on_conflict_do_nothing())


def add_event(queue: Queue, now: float, kind: str, said: str, *, job: str | None = None) -> None:
    with queue.write() as connection:
        note(connection, now, kind, said, job=job)


def import_ledger(queue: Queue, job: str, lines: Sequence[Mapping[str, Any]], now: float, *, from_start: bool) -> None:
    """Take over lines of a trainer's ledger. `from_start`: they are the whole ledger, and other rows are void.

    A step counts once: a row that is trained again after a cut replaces the one that no checkpoint covered.
    """
    with queue.write(in_view=False) as connection:
        if from_start:
            for whole in _KINDS.values():
                connection.execute(whole.delete().where(whole.c.job == job))
        for line in lines:
            if (table := _KINDS.get(str(line.get("kind")))) is not None:
                _put(connection, table, job, line)
            elif line.get("kind") == "event":
                origin = f"{job}:{line.get('step')}:{line.get('event')}:{line.get('text')}"
                said = f"{job}: step {line.get('step')}: {line.get('text') or line.get('event')}"
                note(connection, now, str(line.get("event")), said, job=job, origin=origin)
                if isinstance(change := line.get("change"), dict):
                    _carry(connection, job, int(line["step"]), change, now)


def _carry(connection: Connection, job: str, from_step: int, change: Mapping[str, Any], now: float) -> None:
    """A change that a trainer saw belongs in the job's log; once, however often its ledger is read."""
    row = {"job": job, "from_step": from_step, "change": json.dumps(change, sort_keys=True)}
    known = select(regimes.c.id).where(*(regimes.c[name] == value for name, value in row.items()))
    if connection.execute(known).first() is None:
        connection.execute(insert(regimes).values(at=now, **row))


def _put(connection: Connection, table: Table, job: str, line: Mapping[str, Any]) -> None:
    row = {column.name: line.get(column.name) for column in table.columns} | {"job": job}
    put(connection, table, row)


def list_metrics(queue: Queue, job: str, *, since_step: int = -1) -> list[Metric]:
    """Rows with a step above `since_step`; those beyond the newest durable checkpoint are provisional."""
    with queue.read() as connection:
        wanted = select(metrics).where(metrics.c.job == job, metrics.c.step > since_step).order_by(metrics.c.step)
        return [Metric(**row._mapping) for row in connection.execute(wanted)]


def list_evaluations(queue: Queue, job: str) -> list[Evaluation]:
    with queue.read() as connection:
        wanted = select(evaluations).where(evaluations.c.job == job).order_by(evaluations.c.step)
        return [Evaluation(**row._mapping) for row in connection.execute(wanted)]


def list_events(queue: Queue, *, job: str | None = None, since: int = 0, limit: int = 200) -> list[Event]:
    """The newest `limit` events with an id above `since`, oldest first."""
    columns = (events.c.id, events.c.at, events.c.job, events.c.kind, events.c.text)
    wanted = select(*columns).where(events.c.id > since)
    wanted = wanted if job is None else wanted.where(events.c.job == job)
    with queue.read() as connection:
        rows = connection.execute(wanted.order_by(events.c.id.desc()).limit(limit)).all()
        return [Event(**row._mapping) for row in reversed(rows)]


def add_regime(
    connection: Connection, job: str, from_step: int, change: Mapping[str, Any], now: float, *, is_told: bool = False
) -> None:
    """Record that from this step on the job runs otherwise; the sync loop tells the log, unless that told us."""
    body = json.dumps(change, sort_keys=True)
    durable_at = now if is_told else None
    connection.execute(insert(regimes).values(job=job, from_step=from_step, change=body, at=now, durable_at=durable_at))
    note(connection, now, "regime", f"{job}: from step {from_step:,} on: {in_words(change)}", job=job)


def in_words(change: Mapping[str, Any]) -> str:
    """What a REGIME says, for people: `set: key checkpoint.every_steps, value 50`."""
    rest = {key: value for key, value in change.items() if key != "what"}
    parts = [f"{key.replace('_', ' ')} {_said(value)}" for key, value in rest.items()]
    return f"{change.get('what', 'a change')}: {', '.join(parts)}" if parts else str(change.get("what", "a change"))


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return in_words(value)
    return "; ".join(map(_said, value)) if isinstance(value, list | tuple) else str(value)


def list_regimes(queue: Queue, job: str) -> list[Regime]:
    with queue.read() as connection:
        rows = connection.execute(select(regimes).where(regimes.c.job == job).order_by(regimes.c.id))
        return [row_of(Regime, row._mapping) for row in rows]


def mark_regime_durable(queue: Queue, number: int, now: float) -> None:
    with queue.write() as connection:
        connection.execute(update(regimes).where(regimes.c.id == number).values(durable_at=now))
