"""Make durable what is saved: checkpoints in order, the vocabulary once, regimes, and in the end every artefact."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from runner.queue import attempts, checkpoints, ledger
from runner.queue.rows import Job
from runner.retention import kept_for_good
from runner.screen.daemon_note import Sending, UploadNote
from runner.store.base import Progress
from runner.store.presence import missing
from runner.store.publish import StoredFile, committed, forget, publish_checkpoint, publish_files, stored_parts
from runner.store.records import Record, commits, newest_commit
from runner.store.transfer import Shipment, ship_in_a_process
from runner.sync.job_in_store import JobInStore, SyncContext, beat, stored_table
from runner.sync.prune import best_step, keep_of
from runner.sync.trust import confirm
from wake2vec.contract.errors import CheckpointCorrupt
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.files import digest_file
from wake2vec.contract.manifest import MANIFEST, manifest_sha256, saved_steps, set_aside
from wake2vec.contract.rundir import RunDir

LAST_FOLDERS = ("final", "logs", "eval", "vocab")


def publish_saved(context: SyncContext, stored: JobInStore, job: Job, now: float) -> None:
    """Commit what is wanted of the saved checkpoints, oldest first; the newest always is."""
    run = context.daemon.run(job.name)
    _mark_committed(context, stored, job, run, now)
    for step in to_publish(context, stored, job, run):
        publish_one(context, stored, job, run.checkpoint(step), now)


def _mark_committed(context: SyncContext, stored: JobInStore, job: Job, run: RunDir, now: float) -> None:
    """What lies here and is in the log is durable, also when a daemon died between the two."""
    rows = {one.step: one for one in context.sight.view.checkpoints(job.name)}
    unmarked = [step for step in saved_steps(run) if step in rows and rows[step].durable_at is None]
    for step in unmarked:
        record = committed(stored.log.records, rows[step].manifest_sha256)
        if record is not None and not rows[step].quarantined and not missing(context.daemon.store, record):
            confirm(context, stored, now, context.clock())
            mark(context, stored, job.name, step, record.payload, now)


def to_publish(context: SyncContext, stored: JobInStore, job: Job, run: RunDir) -> list[int]:
    """Saved steps that are to become durable: the newest, and those before it that are kept for good.

    In ascending order, and those for good only beyond the newest COMMIT: a resume starts from the log's last one. The
    newest may lie before it, when the job runs again from before a checkpoint that was damaged or in quarantine.
    """
    rows = context.sight.view.checkpoints(job.name)
    durable = {one.manifest_sha256 for one in rows if one.durable_at is not None}
    quarantined = {one.step for one in rows if one.quarantined}
    there = [step for step in saved_steps(run) if step not in quarantined]
    newest = newest_commit(stored.log.records)
    reached = int(newest.payload["step"]) if newest else -1
    keep = keep_of(context, stored, job)
    wanted = {step for step in there if step == max(there) or (step > reached and kept_for_good(step, keep))}
    return sorted(step for step in wanted if manifest_sha256(run.checkpoint(step)) not in durable)


def publish_one(context: SyncContext, stored: JobInStore, job: Job, folder: Path, now: float) -> None:
    step = int(folder.name.rsplit("-", 1)[1])
    every = job.spec.checkpoint.every_steps
    kind = "milestone" if step % every == 0 or step == job.steps else "rolling"
    failpoint("sync.publish")
    size = sum(path.stat().st_size for path in folder.iterdir())
    upload = UploadNote(job=job.name, name=folder.name, done_bytes=0, size=size, started_at=now)
    sending = Sending(context.daemon.settings.home, upload, context.clock)

    def progress(sent: int) -> None:
        sending.report(sent)
        beat(context, stored, context.clock())

    try:
        record = _send(context, stored, folder, kind, progress)
    except CheckpointCorrupt as error:
        moved = set_aside(folder) if folder.is_dir() else folder
        ledger.add_event(
            context.daemon.queue, now, "corrupt", f"{job.name}: {error}; set aside as {moved.name}", job=job.name
        )
        return
    finally:
        sending.end()
    failpoint("sync.committed")
    confirm(context, stored, now, context.clock())
    mark(context, stored, job.name, step, record.payload, now)


def _send(context: SyncContext, stored: JobInStore, folder: Path, kind: str, progress: Progress) -> Record:
    """Over a network in a process of its own, since only a process can be ended whatever it hangs in."""
    daemon, settings = context.daemon, context.daemon.settings
    attempt = attempts.newest_attempt(daemon.queue, stored.job)
    if not daemon.store.properties.remote:
        return publish_checkpoint(
            daemon.store, stored.log, folder, epoch=stored.epoch, kind=kind, journal=context.journal, attempt=attempt,
            progress=progress,
        )  # fmt: skip
    shipment = Shipment(
        store_url=settings.store_url, home=str(settings.home), first_id=stored.log.first_id, holder=daemon.holder,
        epoch=stored.epoch, folder=str(folder), kind=kind, attempt=attempt, hint=stored.log.carrying_id,
        bandwidth_mib_per_second=settings.numbers.bandwidth_mib_per_second,
    )  # fmt: skip
    record = ship_in_a_process(shipment, context.journal / "running", progress=progress)
    stored.log.refresh()
    return record


def mark(context: SyncContext, stored: JobInStore, job: str, step: int, payload: dict[str, object], now: float) -> None:
    parts, manifest = payload["parts"], payload["manifest"]
    assert isinstance(parts, dict), payload
    assert isinstance(manifest, dict), payload
    size = sum(part["size"] for part in parts.values())
    checkpoints.mark_durable(context.daemon.queue, job, step, manifest_sha256=manifest["sha256"], size=size, now=now)


def publish_vocabulary(context: SyncContext, stored: JobInStore, job: Job) -> None:
    """A job never goes on under an id map made anew, so the one it began with becomes durable once."""
    run = context.daemon.run(job.name)
    if job.after is None and run.id_map.is_file() and stored.noted("vocab") is None:
        files = _publish(context, stored, job, _files(run.root, ["vocab"]), "vocab")
        stored.note("vocab", files=stored_table(files))
        forget(context.journal, f"{stored.log.name}/files/vocab")


def publish_regimes(context: SyncContext, stored: JobInStore, job: Job, now: float) -> None:
    for regime in context.sight.view.regimes:
        if regime.job == job.name:
            body = dict(regime.change) | {"from_step": regime.from_step}
            if body not in [record.payload for record in stored.log.records if record.kind == "REGIME"]:
                stored.log.append("REGIME", body, epoch=stored.epoch)
            ledger.mark_regime_durable(context.daemon.queue, regime.id, now)


def finish(context: SyncContext, stored: JobInStore, job: Job, now: float) -> None:
    """Everything the job leaves behind goes to the store; then the log is closed with DONE."""
    run = context.daemon.run(job.name)
    last = max(saved_steps(run), default=0)
    if any(int(one.payload["step"]) == last for one in commits(stored.log.records)) or last == 0:
        failpoint("sync.finish")
        paths = _files(run.root, LAST_FOLDERS)
        report = run.root / "report.html"
        paths |= {report.name: report} if report.is_file() else {}
        files = _publish(context, stored, job, paths, "artefacts")
        payload = {"files": stored_table(files), "step": last, "best_step": best_step(run)}
        stored.log.append("DONE", payload, epoch=stored.epoch)
        forget(context.journal, f"{stored.log.name}/files/artefacts")
        failpoint("sync.done")
        stored.lease = None  # DONE gave it back
        confirm(context, stored, now, context.clock(), fully=True)
        checkpoints.set_log_state(context.daemon.queue, job.name, now, done_at=now, epoch=None, problem="", remedy="")


def _files(root: Path, folders: Iterable[str]) -> dict[str, Path]:
    """Every plain file below, by its path from the run directory; links and half-written files are left out."""
    found = [path for folder in folders for path in sorted((root / folder).rglob("*"))]
    return {
        path.relative_to(root).as_posix(): path
        for path in found
        if path.is_file() and not path.is_symlink() and not any(part.startswith(".") for part in path.parts[-1:])
    }


def _publish(
    context: SyncContext, stored: JobInStore, job: Job, paths: dict[str, Path], folder: str
) -> dict[str, StoredFile]:
    digests = {name: digest_file(path) for name, path in paths.items()}
    known = stored_parts(stored.log.records)
    return publish_files(
        context.daemon.store, paths, digests, folder=f"{stored.log.name}/files/{folder}", known=known,
        journal=context.journal, progress=lambda _: beat(context, stored, context.clock()),
    )  # fmt: skip


def is_settled(context: SyncContext, job: Job) -> bool:
    """Whether all that is saved of the job is durable."""
    run = context.daemon.run(job.name)
    saved = saved_steps(run)
    if not saved or not (run.checkpoint(saved[0]) / MANIFEST).is_file():
        return True
    durable = checkpoints.durable_step(context.daemon.queue, job.name)
    return durable is not None and durable >= saved[0]
