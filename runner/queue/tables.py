"""The tables of the queue and the number of their format. Times are seconds since 1970, sizes bytes."""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    TEXT,
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

from runner.states import Outcome, State, Wish

FORMAT = 1
metadata = MetaData()


def _one_of(column: str, values: type[State] | type[Outcome] | type[Wish]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IS NULL OR {column} IN ({listed})", name=f"{column}_is_known")


def _job() -> Column[str]:
    return Column("job", TEXT, ForeignKey("jobs.name"), nullable=False)


jobs = Table(
    "jobs",
    metadata,
    Column("name", TEXT, primary_key=True),
    Column("number", Integer, nullable=False, unique=True),  # order of arrival: first in, first out
    Column("phase", TEXT, nullable=False),
    Column("state", TEXT, nullable=False),
    Column("wish", TEXT),
    Column("end_now", Integer, nullable=False, default=0),
    Column("finishing", Integer, nullable=False, default=0),  # trained; its results are on their way to the store
    Column("priority", Integer, nullable=False),
    Column("after", TEXT),
    Column("spec", TEXT, nullable=False),
    Column("inputs", TEXT, nullable=False),
    Column("fingerprint", TEXT, nullable=False),
    Column("steps", Integer),  # None until a job measured in epochs has cut its text
    Column("created_at", REAL, nullable=False),
    Column("changed_at", REAL, nullable=False),
    Column("not_before", REAL, nullable=False, default=0.0),
    Column("stalls", Integer, nullable=False, default=0),
    Column("kept_step", Integer, nullable=False, default=0),
    Column("rolled_back", Integer, nullable=False, default=0),
    Column("reason", TEXT, nullable=False, default=""),
    Column("remedy", TEXT, nullable=False, default=""),
    _one_of("state", State),
    _one_of("wish", Wish),
    sqlite_strict=True,
)

segments = Table(
    "segments",
    metadata,
    _job(),
    Column("number", Integer, nullable=False),
    Column("first_step", Integer, nullable=False),
    Column("last_step", Integer, nullable=False),
    Column("done_at", REAL),
    PrimaryKeyConstraint("job", "number"),
    CheckConstraint("first_step < last_step", name="a_segment_has_steps"),
    sqlite_strict=True,
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("machine", TEXT, nullable=False),
    Column("platform", TEXT, nullable=False),
    Column("gpu", TEXT, nullable=False),
    Column("started_at", REAL, nullable=False),
    Column("seen_at", REAL, nullable=False),
    Column("ended_at", REAL),
    Column("cause", TEXT, nullable=False, default=""),
    sqlite_strict=True,
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Integer, primary_key=True),
    _job(),
    Column("session", Integer, ForeignKey("sessions.id"), nullable=False),
    Column("gpu", Integer, nullable=False),
    Column("pid", Integer),
    Column("started_at", REAL, nullable=False),
    Column("ended_at", REAL),
    Column("first_step", Integer, nullable=False),
    Column("last_step", Integer),
    Column("asked_to_stop_at", REAL),
    Column("outcome", TEXT),
    Column("place", TEXT, nullable=False, default=""),
    Column("cause", TEXT, nullable=False, default=""),
    Column("remedy", TEXT, nullable=False, default=""),
    _one_of("outcome", Outcome),
    # One trainer per card and per job, whatever the code above believes.
    Index("one_attempt_per_gpu", "gpu", unique=True, sqlite_where=text("ended_at IS NULL")),
    Index("one_attempt_per_job", "job", unique=True, sqlite_where=text("ended_at IS NULL")),
    sqlite_strict=True,
)

# Every card of each live attempt, its first one too. A row of an attempt that has ended says nothing.
cards_taken = Table(
    "cards_taken",
    metadata,
    Column("gpu", Integer, primary_key=True),
    Column("attempt", Integer, ForeignKey("attempts.id"), nullable=False),
    sqlite_strict=True,
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _job(),
    Column("step", Integer, nullable=False),
    Column("manifest_sha256", TEXT, nullable=False),
    Column("size", Integer, nullable=False),
    Column("saved_at", REAL),  # None: it is only in the store
    Column("durable_at", REAL),
    Column("quarantined", Integer, nullable=False, default=0),
    PrimaryKeyConstraint("job", "step"),
    sqlite_strict=True,
)

metrics = Table(
    "metrics",
    metadata,
    _job(),
    Column("step", Integer, nullable=False),
    Column("loss", REAL),
    Column("tokens", Integer),
    Column("lr", REAL),
    Column("grad_norm", REAL),
    Column("seconds", REAL),
    PrimaryKeyConstraint("job", "step"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

evaluations = Table(
    "evaluations",
    metadata,
    _job(),
    Column("step", Integer, nullable=False),
    Column("loss", REAL),
    Column("tokens", Integer),
    Column("bits_per_byte", REAL),
    Column("new_loss", REAL),
    Column("new_tokens", Integer),
    Column("base_loss", REAL),
    Column("base_tokens", Integer),
    Column("ln_v", REAL),
    Column("checkpoint", TEXT),
    Column("seconds", REAL),
    PrimaryKeyConstraint("job", "step"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

plan_limits = Table(
    "plan_limits",
    metadata,
    Column("gpu", TEXT, nullable=False),
    _job(),
    Column("plan", TEXT, nullable=False),
    Column("at", REAL, nullable=False),
    PrimaryKeyConstraint("gpu", "job"),
    sqlite_strict=True,
)

regimes = Table(
    "regimes",
    metadata,
    Column("id", Integer, primary_key=True),
    _job(),
    Column("from_step", Integer, nullable=False),
    Column("change", TEXT, nullable=False),  # JSON: what differs from here on
    Column("at", REAL, nullable=False),
    Column("durable_at", REAL),
    sqlite_strict=True,
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", REAL, nullable=False),
    Column("job", TEXT),
    Column("kind", TEXT, nullable=False),
    Column("text", TEXT, nullable=False),
    Column("origin", TEXT, unique=True),  # set for lines of a trainer's ledger, which may be read again
    sqlite_strict=True,
)

# What the sync loop knows of a job's log; written by that loop alone.
logs = Table(
    "logs",
    metadata,
    Column("job", TEXT, ForeignKey("jobs.name"), primary_key=True),
    Column("created_at", REAL),  # GENESIS is in the store
    Column("epoch", Integer),  # of the lease that we hold; None: we hold none
    Column("done_at", REAL),
    Column("problem", TEXT, nullable=False, default=""),
    Column("remedy", TEXT, nullable=False, default=""),
    Column("fenced", Integer, nullable=False, default=0),
    Column("changed_at", REAL, nullable=False, default=0.0),
    sqlite_strict=True,
)
