"""What `start` says: what goes on now, and what changed between two looks. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runner import figures
from runner.screen.render import all_sent
from runner.screen.snapshot import DetailPart, JobPart, Snapshot
from runner.trouble import ENDED, OF_THE_STORE, Cause, Trouble, told

Scene = list[tuple[str, list[str]]]  # a label, and what stands beside it
QUIET = frozenset({"succeeded", "cancelled", "held", "failed"})


def scene(snapshot: Snapshot, doing: str = "") -> Scene:
    """What goes on, in a few lines; `doing` is what the daemon itself is at."""
    jobs = {job.name: job for job in snapshot.jobs}
    at_work = [detail for detail in snapshot.details if jobs[detail.job].state == "running"]
    lines = [("now", _at_work(jobs[detail.job], detail)) for detail in at_work]
    if doing or not at_work:
        lines.insert(0, ("now", [doing or _idle(snapshot)]))
    waits = [_wait(one, snapshot.at) for one in unlike(snapshot.troubles)]
    if waits:
        lines.append(("waits", waits))
    return [*lines, ("store", _store(snapshot))]


def brief(snapshot: Snapshot, doing: str = "") -> list[str]:
    """The same in one line, for every ten seconds of a log."""
    lines = scene(snapshot, doing)
    return [lines[0][1][0], *lines[0][1][1:2], *(part for label, parts in lines if label == "waits" for part in parts)]


def flat(lines: Scene) -> str:
    """All of it in one line."""
    return " · ".join(f"{'store ' if label == 'store' else ''}{' · '.join(parts)}" for label, parts in lines)


def _idle(snapshot: Snapshot) -> str:
    left = [job.name for job in snapshot.jobs if job.state == "queued"]
    if not left:
        return (
            "nothing is left to do; `wake2vec-runner enqueue FILE` adds to it"
            if snapshot.jobs
            else "the queue is empty"
        )
    if snapshot.next_job and not snapshot.troubles:
        return f"{snapshot.next_job}: preparing"
    return f"{', '.join(left)}: waiting"


def _at_work(job: JobPart, detail: DetailPart) -> list[str]:
    if job.is_finishing:
        return [f"{job.name}: trained; its results are on their way to the store"]
    if not detail.is_alive:
        is_coming = detail.heartbeat_at is None  # imports come before its lock and its first sign of life
        return [f"{job.name}: its trainer {'is starting' if is_coming else 'has ended'}"]
    steps = f"{job.name}: step {job.trained:,}" + (f" of {job.steps:,}" if job.steps else "")
    if detail.activity != "training":
        share = f" {detail.activity_progress:.0%}" if detail.activity_progress is not None else ""
        what = detail.activity or "starting"
        steps = f"{steps}: {what}{share}" if job.trained else f"{job.name}: {what}{share}"
        steps += f", {detail.activity_detail}" if detail.activity_detail else ""
    parts = [
        steps,
        f"loss {figures.loss(detail.loss)}" if detail.loss is not None else "",
        f"held-out {figures.loss(job.last.loss)} at {job.last.step:,}" if job.last else "",
        figures.pace(detail.seconds_per_step) if detail.seconds_per_step is not None else "",
        f"durable to {job.durable:,}",
        f"{figures.hours(detail.eta_seconds)} to go" if detail.eta_seconds is not None else "",
    ]
    return [part for part in parts if part]


def _store(snapshot: Snapshot) -> list[str]:
    store = snapshot.store
    parts = [store.place]
    for upload in store.uploads:
        share = upload.done_bytes / max(upload.size, 1)
        parts.append(f"{upload.told} {share:.0%}")
    if store.waiting:
        parts.append(f"{store.waiting} to send, {figures.size(store.waiting_bytes)}")
    elif store.last_durable_at is not None and all_sent(snapshot):
        parts.append("all sent")
    return parts


def _wait(trouble: Trouble, at: float) -> str:
    left = figures.duration(max(0.0, trouble.again_at - at)) if trouble.again_at is not None else ""
    if trouble.cause is Cause.RIVAL:
        return f"{trouble.job}: another runner is at work on it; taken over in {left} if that one stays silent"
    if trouble.cause is Cause.PERSON:
        return f"needs you: {told(trouble)}"
    since = f"for {figures.duration(at - trouble.since_at)}" if trouble.cause in OF_THE_STORE else ""
    again = f"tried again in {left}" if left else ""
    when = ", ".join(part for part in (since, again) if part)
    return told(trouble) + (f" ({when})" if when else "")


def unlike(troubles: Sequence[Trouble]) -> list[Trouble]:
    """One of each kind: all jobs share the store."""
    return list({one.key: one for one in reversed(troubles)}.values())[::-1]


def news(before: Snapshot | None, after: Snapshot) -> Iterator[str]:
    """What a person should read once, at once: evaluations, what became durable, and what is in the way or no more."""
    then = {job.name: job for job in before.jobs} if before else {}
    for job in after.jobs:
        if job.name in then:
            yield from _of_job(then[job.name], job, after)
    troubles = {one.key: one for one in after.troubles}
    known = {one.key: one for one in before.troubles} if before else {}
    over = {job.name for job in after.jobs if job.state in QUIET}
    for key, trouble in troubles.items():
        if key not in known:
            yield f"trouble: {told(trouble)}" + ("; training goes on" if _trains_on(trouble, after) else "")
    for key, trouble in known.items():
        if key not in troubles and trouble.job not in over:
            name = "" if trouble.cause in OF_THE_STORE else f"{trouble.job}: "
            lasted = f", after {figures.duration(after.at - trouble.since_at)}" if trouble.since_at else ""
            yield f"{name}{ENDED[trouble.cause]}{lasted}"
    for need in after.needs_since(before):
        if not any(one.said in need.cause for one in after.troubles):
            yield f"needs you: {need.cause}" + (f"; {need.command}" if need.command else "")


def _trains_on(trouble: Trouble, after: Snapshot) -> bool:
    return trouble.cause in OF_THE_STORE and any(detail.is_alive for detail in after.details)


def _of_job(old: JobPart, new: JobPart, after: Snapshot) -> Iterator[str]:
    known = old.last.step if old.last else -1
    for one in next((detail.held_out for detail in after.details if detail.job == new.name), ()):
        if one.step > known and one.loss is not None:
            said = f"{new.name}: step {one.step:,}: held-out {figures.loss(one.loss)} nats"
            said += f", new words {figures.loss(one.new_loss)}" if one.new_loss is not None else ""
            yield said + (", the best so far" if new.best == one and one.step else "")
    if new.durable > old.durable:
        yield f"{new.name}: step {new.durable:,} is durable in {after.store.place}"
