"""Which job may run next, and why the others wait. Pure: the jobs are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote

from runner.queue.rows import Job
from runner.states import FINAL, State, Where

NOTHING_QUEUED = "nothing is queued; next: wake2vec-runner enqueue FILE..."


def claimable(jobs: Sequence[Job]) -> list[Job]:
    """Queued jobs whose source has succeeded, in the order they are to run: priority first, then first in, first out.

    Back-off and lease are for the caller to look at.
    """
    every = {job.name: job for job in jobs}
    ready = [job for job in jobs if job.state is State.QUEUED and not waiting_for(job, every)]
    return sorted(ready, key=lambda job: (-job.priority, job.number))


def waiting_for(job: Job, every: dict[str, Job]) -> str:
    """The source that has not succeeded yet, or nothing. A job that has begun has its source."""
    source = every.get(job.after) if job.after else None
    return "" if job.after is None or job.kept_step or (source and source.state is State.SUCCEEDED) else job.after


@dataclass(frozen=True, kw_only=True)
class Blocked:
    """Why a job cannot run until a person acts on its source."""

    cause: str
    command: str = ""
    also: str = ""  # another way out

    @property
    def text(self) -> str:
        return f"{self.cause}; " + (f"`{self.command}`" if self.command else "") + self.also


def blocked(job: Job, every: dict[str, Job]) -> Blocked | None:
    """None when it can run, or will by itself."""
    if job.after is None or job.kept_step or job.state is not State.QUEUED:
        return None
    source = every.get(job.after)
    if source is None:
        return Blocked(cause=f"waits for {job.after}, which is not in the queue", also="enqueue that job too")
    cause, command = f"blocked: {source.name} {source.state}", f"wake2vec-runner retry {source.name}"
    if source.state in FINAL and source.state is not State.SUCCEEDED:
        return Blocked(cause=cause, command=command, also=f", or cancel {job.name}")
    if source.state is State.HELD:
        return Blocked(cause=f"blocked: {source.name} is held", command=f"wake2vec-runner release {source.name}")
    return blocked(source, every)


def mend(job: Job, every: dict[str, Job], place: str, file: str = "") -> str:
    """What a person can type where only a person can move the job.

    `place` is in what its last attempt failed, `file` the job file that it was queued from.
    """
    # its text and words are frozen: to retry would not help
    if job.state is State.FAILED and place in (Where.NOTHING, Where.INPUTS):
        file = quote(file or f"{job.name}.toml")
        return f"wake2vec-runner enqueue {file} --again"
    verb = {State.FAILED: "retry", State.HELD: "release"}.get(job.state)
    if verb is None and blocked(job, every) and (source := every.get(job.after or "")) is not None:
        return mend(source, every, "")
    return f"wake2vec-runner {verb} {job.name}" if verb else ""


def unfinished(jobs: Sequence[Job]) -> list[Job]:
    """Jobs that can still move by themselves: neither ended, nor held, nor behind one that a person must mend."""
    every = {job.name: job for job in jobs}
    return [job for job in jobs if not job.is_final and job.state is not State.HELD and not blocked(job, every)]
