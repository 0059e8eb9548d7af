"""Say why a job is where it is, and what a person can do about it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from runner.queue.rows import Job
from runner.queue.waiting import blocked, mend, waiting_for
from runner.screen.database import DatabaseView
from runner.screen.home import HomeView
from runner.screen.snapshot import JobPart, Need, StorePart
from runner.states import State
from runner.trouble import OF_THE_STORE, Trouble

FEW = 3  # checkpoints that a store should always have room for
SILENT_SECONDS = 60.0
LONG_SECONDS = 600.0  # a store that is away for longer may need a person
START = "wake2vec-runner start"


def explain(job: Job, every: dict[str, Job], moment: DatabaseView, around: HomeView, now: float) -> tuple[str, str]:
    """Why a job is where it is, and what moves it when only a person can: a command, or words."""
    log = moment.logs.get(job.name)
    if log is not None and log.fenced:
        return "another runner has taken it over; nothing is uploaded from here", f"{START} --take-over"
    if job.state is State.RUNNING:
        return _explain_running(job, around, moment.elsewhere.get(job.name, ""))
    if job.state is State.QUEUED:
        return _explain_queued(job, every, log.problem if log else "", log.remedy if log else "", around, now)
    if job.state is State.HELD:
        return _with_remedy(job) if job.waits_for_a_person else "held by you", mend(job, every, "")
    if job.state is State.FAILED:
        last = moment.attempts.get(job.name, [])[-1:]
        place = last[0].place if last else ""
        return _with_remedy(job) or "failed", mend(job, every, place, moment.files.get(job.name, ""))
    return (job.reason or "cancelled" if job.state is State.CANCELLED else ""), ""


def _with_remedy(job: Job) -> str:
    return "; ".join(part for part in (job.reason, job.remedy) if part)


def _explain_running(job: Job, around: HomeView, elsewhere: str) -> tuple[str, str]:
    if job.finishing:
        return "trained; its results are on their way to the store", ""
    if job.wish is not None:
        return f"{job.wish} asked for: it saves first", ""
    if elsewhere:
        return f"runs in {elsewhere}", ""
    if job.name not in around.trainers and around.daemon is None:
        return "was running when the runner went away", START
    return job.reason, ""


def _explain_queued(
    job: Job, every: dict[str, Job], problem: str, remedy: str, around: HomeView, now: float
) -> tuple[str, str]:
    source = every.get(waiting_for(job, every))
    if source is not None and source.state is State.HELD:  # by the same person: no cause for alarm
        return f"waits for {source.name}, which is held", ""
    if behind := blocked(job, every):
        return behind.cause, behind.command or behind.also  # what is shown as a command is typed as it stands
    if source is not None:
        return f"waits for {source.name}", ""
    if problem:
        return problem.removeprefix(f"{job.name}: "), "" if _is_of_the_store(job, around) else remedy
    if job.not_before > now:
        return f"tries again in {max(1, round((job.not_before - now) / 60))} min: {job.reason}", ""
    if around.daemon is None:
        return "waits for a runner", ""
    return job.reason or "waits for its turn", ""


def _is_of_the_store(job: Job, around: HomeView) -> bool:
    """Then it is told once, not for every job."""
    return any(one.job == job.name for one in _of_the_store(around))


def _of_the_store(around: HomeView) -> list[Trouble]:
    return [one for one in (around.note.troubles if around.note is not None else ()) if one.cause in OF_THE_STORE]


def needs_of(jobs: Sequence[JobPart], store: StorePart, around: HomeView, now: float, others: int = 0) -> list[Need]:
    """What only a person can mend, each with the command that does it; empty when all goes on by itself."""
    needs = [
        Need(job=job.name, cause=f"{job.name}: {job.says}", command=job.command)
        for job in jobs
        if job.command and (job.state != "held" or job.waits_for_a_person)
    ]
    since = min((one.since_at for one in _of_the_store(around)), default=now)
    if (store.remedy or (store.problem and now - since > LONG_SECONDS)) and not any(
        store.problem in need.cause for need in needs
    ):
        needs.insert(0, Need(job=None, cause=store.problem, command=store.remedy))
    room = store.room_for_checkpoints
    if room is not None and room < FEW:
        needs.append(
            Need(
                job=None,
                cause=f"the store has room for {room} more checkpoints",
                command="make room there, or let it keep fewer milestones",
            )
        )
    for name, beat in around.heartbeats.items():
        if name in around.trainers and now - beat.written_at > SILENT_SECONDS and around.daemon is None:
            said = f"{name}: no heartbeat for {round((now - beat.written_at) / 60)} min, and no runner to end it"
            needs.append(Need(job=name, cause=said, command=START))
    unfinished = any(job.state in ("queued", "running") for job in jobs)
    if around.daemon is None and not others and unfinished and not any(need.command == START for need in needs):
        needs.append(Need(job=None, cause="no runner is at work", command=START))
    return needs
