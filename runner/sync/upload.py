"""Make durable what is saved: checkpoints in order, the vocabulary once, regimes, and in the end every artefact."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from runner.context import Now
from runner.errors import Fenced
from runner.queue import attempts, checkpoints, ledger
from runner.queue.changing import is_told
from runner.queue.rows import Job
from runner.retention import kept_for_good
from runner.screen.daemon_note import Sending, UploadNote
from runner.store.base import Progress
from runner.store.presence import missing
from runner.store.publish import committed, forget, publish_checkpoint, publish_files, stored_parts
from runner.store.records import Done, Record, StoredFile, VocabularyNote, commits, newest_commit, regimes
from runner.store.transfer import Shipment, ship_in_a_process
from runner.sync.job_in_store import JobInStore, SyncContext
from runner.sync.prune import best_step, keep_of
from runner.sync.trust import confirm
from wake2vec.contract.errors import CheckpointCorrupt
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.manifest import MANIFEST, manifest_sha256, saved_steps, set_aside
from wake2vec.contract.rundir import RunDir

LAST_FOLDERS = ("final", "logs", "eval", "vocab")


def publish_saved(stored: JobInStore, job: Job, now: Now) -> None:
    """Commit what is wanted of the saved checkpoints, oldest first; the newest always is."""
    run = stored.run
    _mark_committed(stored, job, run, now)
    for step in to_publish(stored, job, run):
        publish_one(stored, job, step, now)


def _mark_committed(stored: JobInStore, job: Job, run: RunDir, now: Now) -> None:
    """What lies here and is in the log is durable, also when a daemon died between the two."""
    rows = {one.step: one for one in stored.context.sight.view.checkpoints(job.name)}
    unmarked = [step for step in saved_steps(run) if step in rows and rows[step].durable_at is None]
    for step in unmarked:
        record = committed(stored.records, rows[step].manifest_sha256)
        if record is not None and not rows[step].quarantined and not missing(stored.store, record):
            confirm(stored, stored.context.clock(), is_sent=True)
            stored.mark_durable(record.commit, now)


def to_publish(stored: JobInStore, job: Job, run: RunDir) -> list[int]:
    """Saved steps that are to become durable: the newest, and those before it that are kept for good.

    In ascending order, and those for good only beyond the newest COMMIT: a resume starts from the log's last one. The
    newest may lie before it, when the job runs again from before a checkpoint that was damaged or in quarantine.
    """
    rows = stored.context.sight.view.checkpoints(job.name)
    durable = {one.manifest_sha256 for one in rows if one.durable_at is not None}
    quarantined = {one.step for one in rows if one.quarantined}
    there = [step for step in saved_steps(run) if step not in quarantined]
    newest = newest_commit(stored.records)
    reached = newest.commit.step if newest else -1
    keep = keep_of(stored, job)
    wanted = {step for step in there if step == max(there) or (step > reached and kept_for_good(step, keep))}
    return sorted(step for step in wanted if manifest_sha256(run.checkpoint(step)) not in durable)


def publish_one(stored: JobInStore, job: Job, step: int, now: Now) -> None:
    folder = stored.run.checkpoint(step)
    every = job.spec.checkpoint.every_steps
    kind = "milestone" if step % every == 0 or step == job.steps else "rolling"
    failpoint("sync.publish")
    size = sum(path.stat().st_size for path in folder.iterdir())
    upload = UploadNote(job=job.name, name=folder.name, done_bytes=0, size=size, started_at=now.wall)
    sending = Sending(stored.context.home, upload, stored.context.monotonic)

    def progress(sent: int) -> None:
        sending.report(sent)
        stored.beat(stored.context.clock())

    try:
        record = _send(stored, folder, kind, progress)
    except Fenced:
        stored.log.refresh()
        stored.log.check(stored.epoch)
        confirm(stored, stored.context.clock(), fully=True)  # nobody has: the log that was read anew has a gap
        raise
    except CheckpointCorrupt as error:
        moved = set_aside(folder) if folder.is_dir() else folder
        stored.tell(now, "corrupt", f"{error}; set aside as {moved.name}")
        return
    finally:
        sending.end()
    failpoint("sync.committed")
    stored.beat_at = stored.context.monotonic()  # a record is a sign of life too
    confirm(stored, stored.context.clock(), is_sent=True)
    stored.mark_durable(record.commit, now)


def _send(stored: JobInStore, folder: Path, kind: str, progress: Progress) -> Record:
    """Over a network in a process of its own, since only a process can be ended whatever it hangs in."""
    daemon, settings, journal = stored.context.daemon, stored.context.daemon.settings, stored.context.journal
    attempt = attempts.newest_attempt(stored.queue, stored.job)
    if not stored.store.properties.remote:
        return publish_checkpoint(
            stored.store, stored.log, folder, epoch=stored.epoch, kind=kind, journal=journal, attempt=attempt,
            progress=progress,
        )  # fmt: skip
    shipment = Shipment(
        store_url=settings.store_url, home=str(settings.home), first_id=stored.log.first_id, holder=daemon.holder,
        epoch=stored.epoch, folder=str(folder), kind=kind, attempt=attempt, hint=stored.log.carrying_id,
        bandwidth_mib_per_second=settings.numbers.bandwidth_mib_per_second,
    )  # fmt: skip
    record = ship_in_a_process(shipment, journal / "running", progress=progress)
    stored.log.refresh()
    return record


def publish_vocabulary(stored: JobInStore, job: Job) -> None:
    """A job never goes on under an id map made anew, so the one it began with becomes durable once."""
    run = stored.run
    if job.after is None and run.id_map.is_file() and stored.noted(VocabularyNote) is None:
        files = _publish(stored, _files(run.root, ["vocab"]), "vocab")
        stored.note(VocabularyNote(files=files))
        forget(stored.context.journal, f"{stored.log.name}/files/vocab")


def publish_regimes(stored: JobInStore, job: Job, now: Now) -> None:
    for regime in stored.context.sight.view.regimes:
        if regime.job == job.name:
            body = dict(regime.change) | {"from_step": regime.from_step}
            if not is_told(body, [record.payload for record in regimes(stored.records)]):
                stored.log.append("REGIME", body, epoch=stored.epoch)
            ledger.mark_regime_durable(stored.queue, regime.id, now.wall)


def finish(stored: JobInStore, job: Job, now: Now) -> None:
    """Everything the job leaves behind goes to the store; then the log is closed with DONE."""
    run = stored.run
    last = max(saved_steps(run), default=0)
    if any(one.commit.step == last for one in commits(stored.records)) or last == 0:
        failpoint("sync.finish")
        paths = _files(run.root, LAST_FOLDERS)
        report = run.root / "report.html"
        paths |= {report.name: report} if report.is_file() else {}
        files = _publish(stored, paths, "artefacts")
        done = Done(files=files, step=last, best_step=best_step(run))
        stored.log.append("DONE", done.to_payload(), epoch=stored.epoch)
        forget(stored.context.journal, f"{stored.log.name}/files/artefacts")
        failpoint("sync.done")
        stored.lease = None  # DONE gave it back
        confirm(stored, stored.context.clock(), fully=True)
        stored.set_state(now, done_at=now.wall, epoch=None, problem="", remedy="")


def _files(root: Path, folders: Iterable[str]) -> dict[str, Path]:
    """Every plain file below, by its path from the run directory; links and half-written files are left out."""
    found = [path for folder in folders for path in sorted((root / folder).rglob("*"))]
    return {
        path.relative_to(root).as_posix(): path
        for path in found
        if path.is_file() and not path.is_symlink() and not any(part.startswith(".") for part in path.parts[-1:])
    }


def _publish(stored: JobInStore, paths: dict[str, Path], folder: str) -> dict[str, StoredFile]:
    known, context = stored_parts(stored.records), stored.context
    place = f"{stored.log.name}/files/{folder}"

    def progress(_: int) -> None:
        stored.beat(context.clock())

    return publish_files(stored.store, paths, folder=place, known=known, journal=context.journal, progress=progress)


def is_settled(context: SyncContext, job: Job) -> bool:
    """Whether all that is saved of the job is durable."""
    run = context.run(job.name)
    saved = saved_steps(run)
    if not saved or not (run.checkpoint(saved[0]) / MANIFEST).is_file():
        return True
    durable = checkpoints.durable_step(context.queue, job.name)
    return durable is not None and durable >= saved[0]
