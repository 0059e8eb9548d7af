"""Take over into the queue what a trainer left in its run directory: its ledger, its checkpoints, its end."""

from __future__ import annotations

import os

from runner.context import DaemonContext, Position
from runner.queue import checkpoints, jobs, ledger
from runner.queue.rows import Job
from runner.states import Change, State, Wish
from wake2vec.contract.errors import CheckpointCorrupt
from wake2vec.contract.ledger import tables_of
from wake2vec.contract.manifest import MANIFEST, manifest_sha256, read_manifest, saved_steps


def import_new_lines(daemon: DaemonContext, job: str, now: float) -> None:
    """Take over what a trainer's ledger gained; a file that was replaced is read from its start."""
    path = daemon.run(job).metrics
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            known = daemon.positions.get(job)
            continued = known is not None and known.inode == status.st_ino and known.offset <= status.st_size
            offset = known.offset if known is not None and continued else 0
            file.seek(offset)
            body = file.read()
    except FileNotFoundError:
        return
    whole = body[: body.rfind(b"\n") + 1]  # the last line may be half written
    if whole or not continued:
        ledger.import_ledger(daemon.queue, job, tables_of(whole.splitlines()), now, from_start=not continued)
    daemon.positions[job] = Position(inode=status.st_ino, offset=offset + len(whole))


def note_saved(daemon: DaemonContext, job: str) -> None:
    """Bring the table of saved checkpoints in line with the run directory."""
    run = daemon.run(job)
    known = {one.step: one for one in daemon.sight.view.checkpoints(job) if one.saved_at is not None}
    there = set(saved_steps(run))
    for step in sorted(there - set(known)):
        folder = run.checkpoint(step)
        try:
            size = sum(file.size for file in read_manifest(folder).files.values())
            digest = manifest_sha256(folder)
        except (CheckpointCorrupt, FileNotFoundError):
            continue  # torn, or pruned a moment ago; the trainer sets it aside when it comes to it
        checkpoints.mark_saved(
            daemon.queue, job, step, manifest_sha256=digest, size=size, now=(folder / MANIFEST).stat().st_mtime
        )
    for step in set(known) - there:
        checkpoints.mark_gone_here(daemon.queue, job, step)


def promote(daemon: DaemonContext, job: Job, now: float) -> None:
    """Carry out a wish that came after the last step, end what the log calls done."""
    if job.finishing and job.wish is not None:
        change = {Wish.HOLD: Change.HOLD, Wish.CANCEL: Change.CANCEL}[job.wish]
        jobs.change_state(daemon.queue, job.name, change, now, reason=f"{change} on request")
        return
    log = daemon.sight.view.log(job.name)
    if job.finishing and log.fenced:
        # Trained to its end here, but another runner has gone on in the log: that is where the job is.
        jobs.change_state(daemon.queue, job.name, Change.REQUEUE, now, reason=log.problem, remedy=log.remedy)
        return
    if log.done_at is None:
        return
    if job.state is State.RUNNING and not job.finishing:
        return  # its trainer is told to stop first: the log is closed
    reason = "" if job.finishing else "finished by another runner"
    jobs.change_state(daemon.queue, job.name, Change.SUCCEED, now, reason=reason)
