"""What a job can be, how an attempt can end, what a person can wish, and which change leads where. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from runner.errors import IllegalTransition


class State(StrEnum):
    """What a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    HELD = "held"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Outcome(StrEnum):
    """How an attempt ended: the first five are the trainer's own words, the last two are what the runner saw."""

    COMPLETED = "completed"
    YIELDED = "yielded"
    OOM = "oom"
    DIVERGED = "diverged"
    FAILED = "failed"
    LOST = "lost"
    HUNG = "hung"


class Where(StrEnum):
    """In what an attempt failed."""

    SETUP = "setup"
    TRAINING = "training"
    EVALUATION = "evaluation"
    CAPACITY = "capacity"
    NETWORK = "network"
    CARD = "card"
    DISK = "disk"
    FULL = "full"  # the disk of this machine has no room
    INPUTS = "inputs"  # a text or a word list, as it was frozen
    NOTHING = "nothing"  # no step had a gradient, or none moved anything


PASSING = frozenset({Where.NETWORK, Where.CARD, Where.DISK})  # a lost connection, a card that is taken, a bad mount


class Foreign(StrEnum):
    """What a job from the store may want to run here that is not this program's own code."""

    COMMAND = "command"  # a training program of the person who queued it
    REMOTE_CODE = "remote-code"  # Python files that come with a model


class Wish(StrEnum):
    """What a person asked of a job; carried out by the daemon when its trainer has ended."""

    HOLD = "hold"
    CANCEL = "cancel"


class Engine(StrEnum):
    """Who runs the trainers."""

    LOCAL = "local"
    RAY = "ray"


class Change(StrEnum):
    """What can happen to a job."""

    CLAIM = "claim"
    SUCCEED = "succeed"
    REQUEUE = "requeue"
    FAIL = "fail"
    HOLD = "hold"
    RELEASE = "release"
    CANCEL = "cancel"
    RETRY = "retry"
    EXTEND = "extend"


NETWORK_PATIENCE = 3  # waits as after so many attempts in vain, each time

FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

ASKED = frozenset(
    {Change.HOLD, Change.RELEASE, Change.CANCEL, Change.RETRY, Change.EXTEND}
)  # by a person; the rest is the daemon's

# SUCCEED also leaves queued and held: the log may say that another session finished the job.
TRANSITIONS: dict[tuple[State, Change], State] = {
    (State.QUEUED, Change.CLAIM): State.RUNNING,
    (State.QUEUED, Change.HOLD): State.HELD,
    (State.QUEUED, Change.CANCEL): State.CANCELLED,
    (State.QUEUED, Change.SUCCEED): State.SUCCEEDED,
    (State.QUEUED, Change.FAIL): State.FAILED,
    (State.RUNNING, Change.SUCCEED): State.SUCCEEDED,
    (State.RUNNING, Change.REQUEUE): State.QUEUED,
    (State.RUNNING, Change.FAIL): State.FAILED,
    (State.RUNNING, Change.HOLD): State.HELD,
    (State.RUNNING, Change.CANCEL): State.CANCELLED,
    (State.HELD, Change.RELEASE): State.QUEUED,
    (State.HELD, Change.CANCEL): State.CANCELLED,
    (State.HELD, Change.SUCCEED): State.SUCCEEDED,
    (State.FAILED, Change.RETRY): State.QUEUED,
    (State.FAILED, Change.CANCEL): State.CANCELLED,
    (State.CANCELLED, Change.RETRY): State.QUEUED,
    (State.SUCCEEDED, Change.EXTEND): State.QUEUED,
}


def next_state(state: State, change: Change) -> State:
    """Raises IllegalTransition when the table has no such change."""
    try:
        return TRANSITIONS[state, change]
    except KeyError:
        allowed = sorted(str(possible) for origin, possible in TRANSITIONS if origin == state and possible in ASKED)
        said = f"cannot be asked to {change}" if change in ASKED else "does not go on like this"
        raise IllegalTransition(
            f"a {state} job {said}; what may be asked of it: {', '.join(allowed) or 'nothing'}"
        ) from None


# How a job comes to stand as a person wished it elsewhere; what is not here stands so, or better stays as it is.
TO_STAND: dict[tuple[State, State], tuple[Change, ...]] = {
    (State.QUEUED, State.HELD): (Change.HOLD,),
    (State.QUEUED, State.CANCELLED): (Change.CANCEL,),
    (State.HELD, State.QUEUED): (Change.RELEASE,),
    (State.HELD, State.CANCELLED): (Change.CANCEL,),
    (State.FAILED, State.CANCELLED): (Change.CANCEL,),
    (State.CANCELLED, State.QUEUED): (Change.RETRY,),
    (State.CANCELLED, State.HELD): (Change.RETRY, Change.HOLD),
}


def as_wished(state: State, remedy: str) -> State:
    """Held, cancelled or else queued: what a person last made of a job. What the runner holds has a remedy."""
    is_wished = state is State.CANCELLED or (state is State.HELD and not remedy)
    return state if is_wished else State.QUEUED


PLANNED_AHEAD = 1000  # segments that are rows of the queue before a durable checkpoint comes near them


def plan_segments(steps: int, every_steps: int, *, start: int = 0, most: int | None = None) -> list[tuple[int, int]]:
    """(steps completed before it, steps completed at its end) of each segment from `start` on, the first `most`.

    Every one ends at a multiple of `every_steps`, or with the job; none is left of a job that is trained to its end.
    """
    if start >= steps:
        return []
    begin = range(start // every_steps * every_steps, steps, every_steps)[:most]
    return [(max(first, start), min(first + every_steps, steps)) for first in begin]


def count_segments(steps: int, every_steps: int) -> int:
    return -(-steps // every_steps)


def backoff_seconds(stalls: int, first_seconds: float, last_seconds: float) -> float:
    """Wait before the next attempt: doubles with each attempt in a row that kept no new step."""
    return 0.0 if stalls < 1 else float(min(first_seconds * 2.0 ** min(stalls - 1, 60), last_seconds))


def is_due(not_before: float, now: float, longest_wait_seconds: float) -> bool:
    """Whether a back-off is over. A wait longer than any we give means that the clock was set back: do not obey it."""
    return now >= not_before or not_before - now > longest_wait_seconds


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What is known when an attempt has ended."""

    outcome: Outcome
    where: str = ""
    cause: str = ""
    remedy: str = ""
    asked_to_stop: bool = False
    kept_new_step: bool = False
    same_session: bool = True
    wish: Wish | None = None
    stalls: int = 0
    rolled_back: bool = False
    again: bool = False  # the attempt before it failed at the same step in the same way


def same_failure(one: tuple[Outcome | None, str, str, int | None], other: tuple[Outcome, str, str, int]) -> bool:
    """Whether two attempts ended alike: outcome, place, cause but for its numbers, and step."""

    def known(outcome: Outcome | None, place: str, cause: str, step: int | None) -> tuple[object, ...]:
        return outcome, place, re.sub(r"0x[0-9a-f]+|\d+", "#", cause), step

    return known(*one) == known(*other)


@dataclass(frozen=True, kw_only=True)
class RetryBudget:
    """How often and how patiently a job without progress is tried again."""

    attempts: int
    first_seconds: float
    last_seconds: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What becomes of the job. `change` None: everything is trained, only the store still has to have it."""

    change: Change | None
    stalls: int = 0
    wait_seconds: float = 0.0
    roll_back: bool = False
    reason: str = ""
    remedy: str = ""


def judge(ending: Ending, budget: RetryBudget) -> Verdict:
    """How the job goes on after an attempt; what counts are attempts in a row that kept no new step."""
    if ending.wish is Wish.CANCEL:
        return Verdict(change=Change.CANCEL, reason="cancelled")
    if ending.outcome is Outcome.COMPLETED:
        return Verdict(change=None)
    if ending.wish is Wish.HOLD:
        return Verdict(change=Change.HOLD, stalls=ending.stalls, reason="held on request")
    if ending.outcome is Outcome.FAILED and ending.where == "identity":
        remedy = ending.remedy or "mend what the message names, then release it"
        return Verdict(change=Change.HOLD, stalls=ending.stalls, reason=ending.cause, remedy=remedy)
    if permanent := _permanent_reason(ending):
        return Verdict(change=Change.FAIL, reason=permanent, remedy=ending.remedy)
    stalls = 0 if ending.kept_new_step else ending.stalls + _counts(ending)
    reason = f"{ending.outcome}: {ending.cause}" if ending.cause else str(ending.outcome)
    if stalls >= budget.attempts:
        said = f"{stalls} attempts in a row kept no new step; the last one ended as {reason}"
        return Verdict(change=Change.FAIL, stalls=stalls, reason=said, remedy=ending.remedy)
    return Verdict(
        change=Change.REQUEUE,
        stalls=stalls,
        wait_seconds=_wait_seconds(ending, stalls, budget),
        roll_back=ending.outcome is Outcome.DIVERGED,
        reason="" if ending.outcome is Outcome.YIELDED else reason,
        remedy=ending.remedy,
    )


def _permanent_reason(ending: Ending) -> str:
    if ending.outcome is Outcome.DIVERGED and ending.rolled_back:
        return f"diverged again after going back to an older checkpoint: {ending.cause}"
    if ending.outcome is Outcome.FAILED and ending.where == Where.NOTHING:
        return f"trains nothing: {ending.cause}"
    if ending.outcome is Outcome.FAILED and ending.where == Where.CAPACITY:
        return f"does not fit the card: {ending.cause}"
    # A set-up fault that the trainer can name a remedy for will not mend itself, nor will a frozen text.
    if ending.outcome is Outcome.FAILED and (
        ending.where == Where.INPUTS or (ending.where == Where.SETUP and ending.remedy)
    ):
        return f"cannot start: {ending.cause}"
    if _failed_alike(ending):
        return f"failed twice in the same way at the same step: {ending.cause}"
    return ""


def _failed_alike(ending: Ending) -> bool:
    """A third attempt would only cost the time of the second, unless what failed may pass by itself."""
    fresh = ending.kept_new_step or ending.asked_to_stop or ending.where in PASSING or ending.stalls < 1
    return ending.outcome is Outcome.FAILED and ending.again and not fresh


def _counts(ending: Ending) -> int:
    """1 when the attempt goes against the budget. A vanished machine never does, nor does a stop that was asked for."""
    if ending.outcome is Outcome.LOST:
        return int(ending.same_session)
    if ending.where == Where.NETWORK:  # one that is down says nothing about the job
        return 0
    return int(not ending.asked_to_stop)


def _wait_seconds(ending: Ending, stalls: int, budget: RetryBudget) -> float:
    if ending.where == Where.NETWORK:
        return backoff_seconds(NETWORK_PATIENCE, budget.first_seconds, budget.last_seconds)
    # One crash or out-of-memory is retried at once: a fresh process is the cure. Only a series has to wait.
    patient = stalls - 1 if ending.outcome in (Outcome.LOST, Outcome.OOM, Outcome.DIVERGED) else stalls
    return backoff_seconds(patient, budget.first_seconds, budget.last_seconds)
