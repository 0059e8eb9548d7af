"""What the queue gives out: plain frozen data, one class per table, whose columns are its fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from runner.errors import HomeUnusable
from runner.states import FINAL, Outcome, State, Wish
from wake2vec.contract.order import InputFile
from wake2vec.contract.spec import JOB_SPEC, JobSpec

T = TypeVar("T")
FORMAT = 1  # of the tables
# What SQLite has no type for, by the names of the columns.
_TYPES: dict[str, Any] = {"state": State, "wish": Wish, "outcome": Outcome, "change": json.loads} | dict.fromkeys(
    ("end_now", "finishing", "rolled_back", "quarantined", "fenced", "wanted"), bool
)
COLUMNS = {"spec_json": "spec", "inputs_json": "inputs"}  # of the fields that are called otherwise
_FIELDS = {column: field for field, column in COLUMNS.items()}


def homes_at_work(silent_seconds: float) -> str:
    """Of a queue that several share: whose daemons were heard within the time that makes a home gone."""
    return f"SELECT name FROM homes WHERE version != '' AND seen_at > extract(epoch FROM now()) - {silent_seconds:g}"


def row_of(kind: type[T], row: Mapping[Any, Any]) -> T:
    """A table's row as the class that stands for it."""
    return kind(
        **{
            _FIELDS.get(name, name): _TYPES[name](value) if name in _TYPES and value is not None else value
            for name, value in row.items()
        }
    )


def require_known(place: Path, found: int) -> None:
    """Raises HomeUnusable for tables of a newer version."""
    if found > FORMAT:
        said = f"written by a newer wake2vec-runner (format {found}, this one knows {FORMAT}); update this one"
        raise HomeUnusable(f"{place}: {said}")


@dataclass(frozen=True, kw_only=True)
class Job:
    name: str
    number: int  # order of arrival: first in, first out
    phase: str
    state: State
    wish: Wish | None
    end_now: bool = False
    finishing: bool = False  # trained; its results are on their way to the store
    priority: int
    after: str | None
    spec_json: str
    inputs_json: str
    fingerprint: str
    steps: int | None  # None until a job measured in epochs has cut its text
    created_at: float
    changed_at: float
    not_before: float = 0.0
    stalls: int = 0
    kept_step: int = 0
    rolled_back: bool = False
    reason: str = ""
    remedy: str = ""

    @cached_property
    def spec(self) -> JobSpec:
        return JOB_SPEC.validate_json(self.spec_json)

    @cached_property
    def inputs(self) -> list[InputFile]:
        return [InputFile(**table) for table in json.loads(self.inputs_json)]

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    @property
    def waits_for_a_person(self) -> bool:
        """Held by the runner and not on request: something that the job stands on is not what it was."""
        return self.state is State.HELD and bool(self.remedy)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Steps `first_step` to `last_step` of a job, both counted as completed steps."""

    job: str
    number: int
    first_step: int
    last_step: int
    done_at: float | None


@dataclass(frozen=True, kw_only=True)
class Session:
    id: int
    machine: str
    platform: str
    gpu: str
    started_at: float
    seen_at: float
    ended_at: float | None
    cause: str = ""


@dataclass(frozen=True, kw_only=True)
class HomeAtWork:
    """One of the homes that share a queue."""

    name: str
    version: str  # of the program; empty once it has left
    seen_at: float  # on the server's clock


@dataclass(frozen=True, kw_only=True)
class Keeper:
    """The home that looks after a job of a shared queue: what is saved of it lies there."""

    job: str
    home: str
    wanted: bool  # it has a card for the job, so that no other home may take it


@dataclass(frozen=True, kw_only=True)
class Attempt:
    id: int
    job: str
    session: int
    gpu: int
    pid: int | None
    started_at: float
    ended_at: float | None
    first_step: int
    last_step: int | None
    asked_to_stop_at: float | None
    outcome: Outcome | None
    place: str = ""
    cause: str = ""
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Saved here (`saved_at`), durable in the store (`durable_at`), or both."""

    job: str
    step: int
    manifest_sha256: str
    size: int
    saved_at: float | None
    durable_at: float | None
    quarantined: bool = False


@dataclass(frozen=True, kw_only=True)
class Metric:
    job: str
    step: int
    loss: float | None
    tokens: int | None
    lr: float | None
    grad_norm: float | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Losses in nats per token on the held-out text."""

    job: str
    step: int
    loss: float | None
    tokens: int | None
    bits_per_byte: float | None
    new_loss: float | None
    new_tokens: int | None
    base_loss: float | None
    base_tokens: int | None
    ln_v: float | None
    checkpoint: str | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Regime:
    """From this step on something other than the result's definition was different."""

    id: int
    job: str
    from_step: int
    change: dict[str, Any]  # what differs from here on
    at: float
    durable_at: float | None


@dataclass(frozen=True, kw_only=True)
class PlanLimit:
    """What a card was found to hold."""

    gpu: str
    job: str
    plan: str
    at: float


@dataclass(frozen=True, kw_only=True)
class Event:
    id: int
    at: float
    job: str | None
    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class LogState:
    """What the sync loop knows of a job's log in the store; written by that loop alone."""

    job: str
    created_at: float | None = None  # GENESIS is in the store
    epoch: int | None = None  # of the lease that we hold; None: we hold none
    done_at: float | None = None
    problem: str = ""
    remedy: str = ""
    fenced: bool = False
    changed_at: float = 0.0
