"""What keeps a job from going on, as a kind: who can mend it, since when, and when it is tried again. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from runner.errors import LeaseHeld, NeedsYou, RunnerError, SignInNeeded, StoreFull, StoreLost, StoreUnavailable, Unsent
from runner.figures import duration
from runner.queue.rows import Job
from runner.queue.waiting import unfinished


class Cause(StrEnum):
    """Of what kind it is."""

    STORE = "store"  # away or busy
    FULL = "full"  # the store has no room
    LOST = "lost"  # the store is not what this home knows
    SIGN_IN = "sign-in"  # the store wants a person
    RIVAL = "rival"  # another runner holds the job
    DISK = "disk"  # of this machine
    BACKOFF = "back-off"  # it failed a moment ago
    MACHINE = "machine"  # its card is taken, its disk is full, its session ends
    PERSON = "person"  # nothing moves it but a person


OF_THE_STORE = frozenset({Cause.STORE, Cause.FULL, Cause.LOST, Cause.SIGN_IN})
ENDED = {
    Cause.STORE: "the store answers again",
    Cause.FULL: "the store has room again",
    Cause.LOST: "the store is what it was again",
    Cause.SIGN_IN: "the store lets us in again",
    Cause.RIVAL: "no other runner is in the way any more",
    Cause.DISK: "the disk of this machine can be used again",
    Cause.BACKOFF: "it is tried again",
    Cause.MACHINE: "this machine is free for it again",
    Cause.PERSON: "no person is needed any more",
}
SURE = 2  # failures in a row that make sure that only a person can help


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Times in seconds since 1970."""

    job: str | None
    cause: Cause
    said: str
    command: str = ""  # what a person can type
    since_at: float
    again_at: float | None = None  # when it is tried again; of a rival: when it counts as gone if it stays silent
    times: int = 1  # in a row

    @property
    def key(self) -> tuple[str | None, Cause, str]:
        """The same while it goes on, whatever its text counts. All jobs share the store."""
        own = self.said if self.cause is Cause.PERSON else ""
        return (None if self.cause in OF_THE_STORE else self.job, self.cause, own)


def cause_of(error: Exception) -> Cause:
    kinds = {
        LeaseHeld: Cause.RIVAL,
        SignInNeeded: Cause.SIGN_IN,
        StoreFull: Cause.FULL,
        StoreLost: Cause.LOST,
        StoreUnavailable: Cause.STORE,
    }
    if isinstance(error, OSError):
        return Cause.DISK
    return next((cause for kind, cause in kinds.items() if isinstance(error, kind)), Cause.PERSON)


def command_of(error: Exception, cause: Cause, job: str) -> str:
    """What a person can type; for what nothing else mends there is always a way to go on without the job."""
    named = error.command if isinstance(error, RunnerError) else ""
    usual = {
        Cause.SIGN_IN: "wake2vec-runner login",
        Cause.FULL: "make room there",
        Cause.LOST: "wake2vec-runner repair",
        Cause.PERSON: f"wake2vec-runner cancel {job}",
    }
    return named or usual.get(cause, "")


def still_moving(every: Sequence[Job], working: set[str], trouble: Callable[[str], Trouble | None]) -> list[Job]:
    """Unfinished jobs for which there is something to wait: neither a person nor the store alone holds them up."""
    stuck = {job.name for job in every if job.name not in working and _holds_up(trouble(job.name))}
    while behind := {job.name for job in every if job.after in stuck} - stuck - working:
        stuck |= behind
    return [job for job in unfinished(every) if job.name not in stuck]


def _holds_up(trouble: Trouble | None) -> bool:
    if trouble is None:
        return False
    return trouble.cause in OF_THE_STORE or (trouble.cause is Cause.PERSON and trouble.times >= SURE)


def conclude(
    troubles: Sequence[Trouble], unsent: Sequence[str], waited_seconds: float, patience_seconds: float
) -> RunnerError | None:
    """With what error a run ends in which nothing moves any more; None while the store is given more time."""
    persons = [one for one in troubles if one.cause is Cause.PERSON]
    away = [one for one in troubles if one.cause in OF_THE_STORE]
    if gone := [one.said for one in away if one.cause is Cause.LOST]:
        return StoreLost(gone[0])  # a fact, which no patience mends
    if away and waited_seconds < patience_seconds:
        return None
    waited = duration(waited_seconds)
    lines = list(dict.fromkeys(told(one) for one in troubles))
    if unsent and away:
        names = ", ".join(unsent)
        first = f"on this machine only, not in the store after {waited} of waiting: {names}"
        return Unsent("\n".join([first, *lines, "keep this machine's home; `wake2vec-runner start` sends it"]))
    if persons:
        return NeedsYou("\n".join(["only jobs that need you are left", *lines]))
    return Unsent("\n".join([f"the store was not to be had for {waited}", *lines]))


def told(trouble: Trouble) -> str:
    """With what mends it, once."""
    return (
        trouble.said if not trouble.command or trouble.command in trouble.said else f"{trouble.said}; {trouble.command}"
    )
