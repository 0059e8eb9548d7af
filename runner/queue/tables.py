"""The tables of the queue, their columns those of `rows`.

Times are seconds since 1970, sizes bytes.
"""

from __future__ import annotations

import types
import typing
from dataclasses import MISSING, fields
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    DOUBLE_PRECISION,
    REAL,
    TEXT,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    text,
)

from runner.queue import rows
from runner.states import Outcome, State, Wish

metadata = MetaData()
# PostgreSQL's own of these names are half as wide.
_WHOLE: Any = Integer().with_variant(BigInteger(), "postgresql")
_FLOAT: Any = REAL().with_variant(DOUBLE_PRECISION(), "postgresql")
_LIVES = text("ended_at IS NULL")


def _columns(row: type, **keys: Any) -> list[Column[Any]]:
    """One for each field; `keys` says more of some: what they refer to, or how they are told apart."""
    hints = typing.get_type_hints(row)
    return [_column(rows.COLUMNS.get(one.name, one.name), hints[one.name], one.default, keys) for one in fields(row)]


def _column(name: str, hint: Any, default: Any, keys: dict[str, Any]) -> Column[Any]:
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kind = next(member for member in members if member is not types.NoneType)
    nullable = types.NoneType in members
    more = {"job": {"args": [ForeignKey("jobs.name")]}} | keys
    told = dict(more.get(name, {}))
    args = told.pop("args", [])
    if default is not MISSING and not nullable:
        told["default"] = int(default) if kind is bool else default
    sql: Any = _FLOAT if kind is float else _WHOLE if kind in (int, bool) else TEXT
    return Column(name, sql, *args, **({"nullable": nullable} | told))


def _one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IS NULL OR {column} IN ({listed})", name=f"{column}_is_known")


KEY: dict[str, Any] = {"primary_key": True}
PLAIN: dict[str, Any] = {"args": []}  # refers to nothing

jobs = Table(
    "jobs",
    metadata,
    *_columns(rows.Job, name=KEY, number={"unique": True}),
    _one_of("state", State),
    _one_of("wish", Wish),
    Index("jobs_in_line", text("priority DESC"), "number", postgresql_where=text("state = 'queued'")).ddl_if(
        "postgresql"
    ),
    sqlite_strict=True,
)

segments = Table(
    "segments",
    metadata,
    *_columns(rows.Segment),
    PrimaryKeyConstraint("job", "number"),
    CheckConstraint("first_step < last_step", name="a_segment_has_steps"),
    sqlite_strict=True,
)

sessions = Table("sessions", metadata, *_columns(rows.Session, id=KEY), sqlite_strict=True)

attempts = Table(
    "attempts",
    metadata,
    *_columns(rows.Attempt, id=KEY, session={"args": [ForeignKey("sessions.id")]}),
    _one_of("outcome", Outcome),
    # One trainer per card and per job, whatever the code above believes. A session is the life of one host.
    Index("one_attempt_per_gpu", "gpu", unique=True, sqlite_where=_LIVES).ddl_if("sqlite"),
    Index("one_attempt_per_card", "session", "gpu", unique=True, postgresql_where=_LIVES).ddl_if("postgresql"),
    Index("one_attempt_per_job", "job", unique=True, sqlite_where=_LIVES, postgresql_where=_LIVES),
    sqlite_strict=True,
)

# Every card of each live attempt, its first one too. A row of an attempt that has ended says nothing.
cards_held = Table(
    "cards_held",
    metadata,
    Column("session", _WHOLE, ForeignKey("sessions.id"), primary_key=True),
    Column("gpu", _WHOLE, primary_key=True),
    Column("attempt", _WHOLE, ForeignKey("attempts.id"), nullable=False),
    sqlite_strict=True,
)

# Of a queue that several homes share; empty in a queue of one home.
homes = Table("homes", metadata, *_columns(rows.HomeAtWork, name=KEY), sqlite_strict=True)
keepers = Table(
    "keepers", metadata, *_columns(rows.Keeper, job=KEY | {"args": [ForeignKey("jobs.name")]}), sqlite_strict=True
)
# Where a person queued a job from, for the commands that name its file: none of a job that came from the store.
files = Table(
    "files",
    metadata,
    Column("job", TEXT, ForeignKey("jobs.name"), primary_key=True),
    Column("path", TEXT, nullable=False),
    sqlite_strict=True,
)
YOUNGER = (cards_held, homes, keepers, files)  # than the format: an older home lacks them


def _by_step(name: str, row: type, **more: Any) -> Table:
    return Table(name, metadata, *_columns(row), PrimaryKeyConstraint("job", "step"), sqlite_strict=True, **more)


checkpoints = _by_step("checkpoints", rows.Checkpoint)
metrics = _by_step("metrics", rows.Metric, sqlite_with_rowid=False)
evaluations = _by_step("evaluations", rows.Evaluation, sqlite_with_rowid=False)

plan_limits = Table(
    "plan_limits", metadata, *_columns(rows.PlanLimit), PrimaryKeyConstraint("gpu", "job"), sqlite_strict=True
)

regimes = Table("regimes", metadata, *_columns(rows.Regime, id=KEY), sqlite_strict=True)

events = Table(
    "events",
    metadata,
    *_columns(rows.Event, id=KEY, job=PLAIN),
    Column("origin", TEXT, unique=True),  # set for lines of a trainer's ledger, which may be read again
    sqlite_strict=True,
)

logs = Table(
    "logs", metadata, *_columns(rows.LogState, job=KEY | {"args": [ForeignKey("jobs.name")]}), sqlite_strict=True
)
