"""Turn the queue and its surroundings into the one picture that the screen and `--json` show. Pure.

The fields are the schema of `status --json`: they may be added to, not renamed. Times are seconds since 1970 where the
name ends in `_at` or `_by`, losses nats per token, sizes bytes where nothing else is said. None means unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

from runner.queue.rows import Event
from runner.screen.daemon_note import CardNote, UploadNote
from runner.trouble import Trouble

FORMAT = 1
STARTING = "starting"  # the activity of a trainer that has not said anything yet


@dataclass(frozen=True, kw_only=True)
class RunnerPart:
    """The daemon."""

    is_alive: bool
    pid: int | None
    since_at: float | None


@dataclass(frozen=True, kw_only=True)
class SessionPart:
    """The life of this machine."""

    number: int
    platform: str
    gpu: str
    started_at: float
    stop_by: float | None
    usual_minutes: float | None  # how long sessions that are over lasted here, on average


@dataclass(frozen=True, kw_only=True)
class EvaluationPart:
    step: int
    loss: float | None
    bits_per_byte: float | None
    new_loss: float | None  # on the words that were added
    base_loss: float | None  # on all others


@dataclass(frozen=True, kw_only=True)
class JobPart:
    """A job in the queue."""

    name: str
    phase: str
    state: str
    wish: str | None
    is_finishing: bool
    priority: int
    after: str | None
    steps: int | None
    trained: int  # steps done
    saved: int  # of these, in a checkpoint on this disk
    durable: int  # of these, in a verified checkpoint in the store
    segments: int
    segments_done: int
    attempts: int
    best: EvaluationPart | None
    last: EvaluationPart | None
    says: str  # why it is where it is
    command: str  # what a person can do about it, as typed or in words; empty when nothing is needed
    waits_for_a_person: bool = False  # held by the runner: something that the job stands on has changed


@dataclass(frozen=True, kw_only=True)
class MemoryPart:
    """GPU memory, MiB."""

    reserved_mib: int | None
    peak_mib: int | None
    total_mib: int | None


@dataclass(frozen=True, kw_only=True)
class DetailPart:
    """What is known of a job that runs, or of the one that last did."""

    job: str
    model: str
    is_alive: bool
    attempt: int | None
    activity: str  # loading, fitting, training, evaluating, sampling, exporting
    activity_detail: str
    activity_progress: float | None
    heartbeat_at: float | None
    start_seconds: dict[str, float] | None  # what the parts of the way to this attempt's first step took
    segment: int | None
    segment_first: int | None
    segment_last: int | None
    loss: float | None
    lr: float | None
    grad_norm: float | None
    seconds_per_step: float | None
    tokens_per_second: float | None
    eta_seconds: float | None
    eta_sessions: int | None
    lost_if_machine_goes_seconds: float  # work since the newest durable checkpoint
    lost_if_trainer_goes_seconds: float  # work since the newest saved one
    next_evaluation: int | None
    next_milestone: int | None
    learns: bool | None  # None: it cannot be said
    learning: str
    ln_v: float | None  # loss of a guess among all tokens
    losses: tuple[float, ...]  # training loss, thinned to a curve
    held_out: tuple[EvaluationPart, ...]
    memory: MemoryPart
    cards: tuple[int, ...]  # that share its steps; empty where one alone takes them
    plan: dict[str, object] | None
    ooms: int
    regimes: int  # times that something other than the plan changed, such as a shorter context
    layers: tuple[str, ...] = ()  # why layer paths were not taken: which layer differs from the library's, by how much


@dataclass(frozen=True, kw_only=True)
class StorePart:
    """Where things outlive the session."""

    place: str
    waiting: int  # checkpoints that are saved and not yet durable
    waiting_bytes: int
    uploads: tuple[UploadNote, ...]
    bytes_per_second: float | None
    last_durable_at: float | None
    free_bytes: int | None
    total_bytes: int | None
    full_at: float | None  # when the room runs out at the rate of the last hours; None while it does not
    room_for_checkpoints: int | None
    problem: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Need:
    """Something that a person must decide or do."""

    job: str | None
    cause: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything, at one moment."""

    format: int
    at: float
    home: str
    runner: RunnerPart
    session: SessionPart | None
    cards: tuple[CardNote, ...]
    details: tuple[DetailPart, ...]
    next_job: str | None
    jobs: tuple[JobPart, ...]
    store: StorePart
    needs: tuple[Need, ...]
    troubles: tuple[Trouble, ...]  # what is in the way now, and until when
    events: tuple[Event, ...]

    @property
    def is_working(self) -> bool:
        return any(detail.is_alive for detail in self.details)

    def needs_since(self, before: Snapshot | None) -> list[Need]:
        """Those that were not there before: of another job, or mended by another command."""
        asked = {(need.job, need.command) for need in before.needs} if before else set()
        return [need for need in self.needs if (need.job, need.command) not in asked]
