"""Make a job's run directory ready for a trainer: inputs, newest durable checkpoint, vocabulary, its source."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from runner.context import Now, Ready
from runner.errors import Damaged, NeedsHelp, NotStored
from runner.queue import checkpoints, jobs
from runner.queue.rows import Job
from runner.screen.daemon_note import Sending, UploadNote
from runner.states import Foreign
from runner.store.publish import fetch_checkpoint, fetch_files
from runner.store.records import (
    QuarantineNote,
    Record,
    SourceNote,
    StoredFile,
    VocabularyNote,
    commits,
    last_attempt,
    manifests,
    notes,
)
from runner.sync.job_in_store import JobInStore
from runner.sync.opening import open_job_log
from runner.sync.prune import best_step, delete_folder
from wake2vec.contract.errors import CheckpointCorrupt
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.files import digest_file, make_directory, put_in_place, read_json, whole_folder
from wake2vec.contract.manifest import MANIFEST, manifest_sha256, newest_verified, saved_steps, verify_checkpoint
from wake2vec.contract.order import Source
from wake2vec.contract.rundir import RunDir
from wake2vec.contract.spec import JobSpec

FINAL = "final/"


def prepare(stored: JobInStore, job: Job, now: Now) -> Ready:
    """Raises NeedsHelp when a person must decide, StoreUnavailable when something cannot be fetched now."""
    require_allowed(stored, job)
    run = stored.run
    make_directory(run.checkpoints)
    fetch_inputs(stored, job)
    restore_vocabulary(stored, run)
    restore_checkpoint(stored, job, run, now)
    source = restore_source(stored, job, run, now) if job.after and job.phase != "command" else None
    return Ready(source=source, last_attempt=last_attempt(stored.records))


def require_allowed(stored: JobInStore, job: Job) -> None:
    """Raises NeedsHelp for a job of another machine that would run more than our own code: whoever can write the store
    could have put it there."""
    wanted, daemon = foreign_code(job.spec), stored.context.daemon
    if wanted is None or wanted in daemon.allow or stored.records[0].holder == daemon.holder:
        return
    what = "a program of its own" if wanted is Foreign.COMMAND else "Python code that comes with its model"
    raise NeedsHelp(
        f"{job.name}: runs {what}, and {stored.records[0].holder} queued it, not this home; where you trust all "
        f"who can write {stored.store.properties.place}, let it",
        command=f"wake2vec-runner start --allow {wanted}",
    )


def foreign_code(spec: JobSpec) -> Foreign | None:
    if spec.phase == "command":
        return Foreign.COMMAND
    return Foreign.REMOTE_CODE if spec.model and spec.model.trust_remote_code else None


def fetch_inputs(stored: JobInStore, job: Job) -> None:
    """Every text is here and is the one that was frozen; a missing one comes from the store."""
    folder = stored.context.daemon.settings.inputs
    files = stored.records[0].genesis.stored_inputs
    for item in job.inputs:
        path = folder / item.sha256
        if item.role == "model" or (path.is_file() and path.stat().st_size == item.size):
            continue
        if item.sha256 not in files:
            raise NeedsHelp(
                f"{job.name}: its {item.role} {item.name} is neither here nor in the store; enqueue it again"
            )
        fetch_files(stored.store, {item.sha256: files[item.sha256]}, folder)
    for item in job.inputs:
        path = folder / item.sha256
        if item.role != "model" and (found := digest_file(path).sha256) != item.sha256:
            raise NeedsHelp(
                f"{path}: the {item.role} {item.name} changed after it was frozen (sha256 {found[:12]}…, "
                f"expected {item.sha256[:12]}…); remove that file, and the store's copy takes its place"
            )


def restore_vocabulary(stored: JobInStore, run: RunDir) -> None:
    """Have the vocabulary that the log names, byte for byte: a missing or damaged one comes from the store."""
    files = vocabulary_of(stored)
    if not files or is_whole(run.root, files):
        return
    arriving = run.root / "vocab.arriving"
    fetch_files(stored.store, files, arriving)
    put_in_place(arriving / run.vocab.name, run.vocab)
    shutil.rmtree(arriving)


def vocabulary_of(stored: JobInStore) -> dict[str, StoredFile]:
    """Its files, by their paths below the run directory; none before they are durable."""
    note = stored.noted(VocabularyNote)
    return note.files if note else {}


def final_files(stored: JobInStore) -> dict[str, StoredFile]:
    """Of the result that DONE names."""
    return {name: file for name, file in stored.records[-1].done.files.items() if name.startswith(FINAL)}


def is_whole(root: Path, files: Mapping[str, StoredFile]) -> bool:
    return all((root / name).is_file() and digest_file(root / name).sha256 == files[name].sha256 for name in files)


def restore_checkpoint(stored: JobInStore, job: Job, run: RunDir, now: Now) -> None:
    """Have at least the newest durable checkpoint that can be read; go back in the log until one can."""
    found = commits(stored.records)
    _drop_what_a_rival_passed(stored, run, found, now)
    report: list[str] = []
    here = newest_verified(run, job.fingerprint, report)
    for line in report:
        stored.tell(now, "corrupt", line)
    reached = here[1].step if here else -1
    quarantined = {one.manifest_sha256 for one in notes(stored.records, QuarantineNote)}
    wanted = [one for one in found if one.commit.manifest.sha256 not in quarantined]
    for commit in reversed(wanted):
        step = commit.commit.step
        if step <= reached or _fetch(stored, commit, run, now):
            return
    if wanted and reached < 0:
        raise NeedsHelp(
            f"{job.name}: none of its {len(wanted)} durable checkpoints can be read from "
            f"{stored.store.properties.place}; see whether files were removed there by hand. To train it again "
            "from the start, enqueue it under another name"
        )


def _fetch(stored: JobInStore, record: Record, run: RunDir, now: Now) -> bool:
    """Bring one checkpoint here; False when the store does not have it whole any more."""
    context, commit = stored.context, record.commit
    folder, size = run.checkpoint(commit.step), commit.size
    if folder.is_dir() and manifest_sha256_or_none(folder) != commit.manifest.sha256:
        delete_folder(folder)
    coming = UploadNote(job=stored.job, name=folder.name, done_bytes=0, size=size, started_at=now.wall, is_coming=True)
    sending, began = Sending(context.home, coming, context.monotonic), context.monotonic()
    try:
        fetch_checkpoint(context.store, record, run.checkpoints, progress=sending.report)
    except (NotStored, Damaged, CheckpointCorrupt) as error:
        stored.tell(now, "corrupt", f"checkpoint {commit.step} in the store cannot be used, going back one: {error}")
        checkpoints.mark_gone_from_store(context.queue, stored.job, commit.step)
        return False
    finally:
        sending.end()
    failpoint("prepare.fetched")
    stored.tell(now, "restored", f"checkpoint {commit.step} came from the store in {context.monotonic() - began:.0f} s")
    return True


def manifest_sha256_or_none(folder: Path) -> str | None:
    try:
        return manifest_sha256(folder)
    except FileNotFoundError:
        return None


def _drop_what_a_rival_passed(stored: JobInStore, run: RunDir, found: list[Record], now: Now) -> None:
    """Another runner committed last: what this home saved beside that, and never committed, is not the job's past.

    What it saved on top of that commit is: each manifest names the one before it.
    """
    if not found or found[-1].holder == stored.context.daemon.holder:
        return
    kept = manifests(found) | built_on(run, found[-1].commit.manifest.sha256)
    for step in saved_steps(run):
        if manifest_sha256(run.checkpoint(step)) not in kept:
            delete_folder(run.checkpoint(step))
            text = f"checkpoint {step} of this home was dropped: {found[-1].holder} has gone on without it"
            stored.tell(now, "dropped", text)


def built_on(run: RunDir, sha256: str) -> set[str]:
    """The manifest of that sha256 and those saved here that descend from it, by what each says of the one before."""
    family = {sha256}
    for step in reversed(saved_steps(run)):
        table = read_json(run.checkpoint(step) / MANIFEST)
        if isinstance(table, dict) and table.get("parent") in family:
            family.add(manifest_sha256(run.checkpoint(step)))
    return family


def restore_source(stored: JobInStore, job: Job, run: RunDir, now: Now) -> Source:
    """The checkpoint that a job starts from, chosen once, noted in the log, and copied into the run directory.

    A P3 also has the rows that its P2 left standing, which lie in the checkpoint that the P2 started from.
    """
    assert job.after is not None, job.name
    origin = open_job_log(stored.context, jobs.get_job(stored.queue, job.after), now)
    noted = stored.noted(SourceNote)
    if noted is None:
        origin.log.refresh()
        step = _source_step(origin, job)
        commit = _commit_of(origin, step, job)
        noted = SourceNote(job=job.after, step=step, manifest_sha256=commit.commit.manifest.sha256)
        stored.note(noted)
    source = _source(noted)
    _copy_checkpoint(origin, source, run)
    below, root = origin.noted(SourceNote), origin
    if below is not None:
        root = open_job_log(stored.context, jobs.get_job(stored.queue, below.job), now)
        if (lora := jobs.get_job(stored.queue, job.after).spec.lora) is not None and lora.train == "lora":
            rows = _source(below, folder=f"{run.source.name}/rows")
            _copy_checkpoint(root, rows, run)
            source = source.model_copy(update={"rows": rows})
    _copy_vocabulary(root, run)
    return source


def _source(noted: SourceNote, folder: str = "source") -> Source:
    return Source(job=noted.job, step=noted.step, manifest_sha256=noted.manifest_sha256, folder=folder)


def _source_step(origin: JobInStore, job: Job) -> int:
    rows = job.spec.rows
    if isinstance(rows, int):
        return rows
    if not origin.is_done:
        raise NeedsHelp(f"{job.name}: {origin.job} is not done in the store yet")
    done = origin.records[-1].done
    best = done.best_step or best_step(origin.run)
    return int(best) if rows == "best" and best else done.step


def _commit_of(origin: JobInStore, step: int, job: Job) -> Record:
    found = [one for one in commits(origin.records) if one.commit.step == step]
    if not found:
        steps = ", ".join(str(one.commit.step) for one in commits(origin.records))
        raise NeedsHelp(
            f"{job.name}: {origin.job} has no durable checkpoint {step}; durable are {steps}; change rows ="
        )
    return found[-1]


def _copy_checkpoint(origin: JobInStore, source: Source, run: RunDir) -> None:
    """`source/checkpoint-<step>`: linked from the other run directory, or fetched."""
    there = origin.run
    folder = run.checkpoint(source.step, source.folder)
    if not _is_that(folder, source.manifest_sha256):
        shutil.rmtree(folder, ignore_errors=True)
        if _is_that(there.checkpoint(source.step), source.manifest_sha256):
            link_folder(there.checkpoint(source.step), folder)
        else:
            commit = next(
                one for one in commits(origin.records) if one.commit.manifest.sha256 == source.manifest_sha256
            )
            fetch_checkpoint(origin.store, commit, folder.parent)


def _copy_vocabulary(origin: JobInStore, run: RunDir) -> None:
    """`source/vocab`: of the job that made it."""
    there = origin.run
    if not (run.source / "vocab" / run.id_map.name).is_file() or not is_whole(run.source, vocabulary_of(origin)):
        restore_vocabulary(origin, there)
        link_folder(there.vocab, run.source / "vocab")


def _is_that(folder: Path, sha256: str) -> bool:
    """Whether the checkpoint is the one that was chosen, in every byte: its rows are what a P2 stands on."""
    try:
        verify_checkpoint(folder)
        return manifest_sha256(folder) == sha256
    except (CheckpointCorrupt, OSError):
        return False


def link_folder(folder: Path, target: Path) -> None:
    """The same files under another name: both are immutable, so no byte is copied. Whole or absent."""
    with whole_folder(target) as arriving:
        shutil.copytree(folder, arriving, copy_function=_link_file, dirs_exist_ok=True)


def _link_file(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
