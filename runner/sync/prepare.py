"""Make a job's run directory ready for a trainer: inputs, newest durable checkpoint, vocabulary, the source of P2."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.context import Ready
from runner.errors import Damaged, NeedsHelp, NotStored
from runner.queue import checkpoints, jobs, ledger
from runner.queue.rows import Job
from runner.screen.daemon_note import Sending, UploadNote
from runner.states import Foreign
from runner.store.publish import StoredFile, fetch_checkpoint, fetch_files
from runner.store.records import Record, commits, genesis, is_done, last_attempt
from runner.sync.job_in_store import JobInStore, SyncContext, from_table, open_job_log
from runner.sync.prune import best_step, delete_folder
from wake2vec.contract.errors import CheckpointCorrupt
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.files import digest_file, make_directory, put_in_place, read_json
from wake2vec.contract.manifest import MANIFEST, manifest_sha256, newest_verified, saved_steps, verify_checkpoint
from wake2vec.contract.order import Source
from wake2vec.contract.rundir import RunDir
from wake2vec.contract.spec import JobSpec

FINAL = "final/"


def prepare(context: SyncContext, stored: JobInStore, job: Job, now: float) -> Ready:
    """Raises NeedsHelp when a person must decide, StoreUnavailable when something cannot be fetched now."""
    require_allowed(context, stored, job)
    run = context.daemon.run(job.name)
    make_directory(run.checkpoints)
    fetch_inputs(context, stored, job)
    restore_vocabulary(context, stored, run)
    restore_checkpoint(context, stored, job, run, now)
    source = restore_source(context, stored, job, run, now) if job.after is not None and job.phase == "p2" else None
    return Ready(source=source, last_attempt=last_attempt(stored.log.records))


def require_allowed(context: SyncContext, stored: JobInStore, job: Job) -> None:
    """Raises NeedsHelp for a job of another machine that would run more than our own code: whoever can write the store
    could have put it there."""
    wanted = foreign_code(job.spec)
    if wanted is None or wanted in context.daemon.allow or stored.log.records[0].holder == context.daemon.holder:
        return
    what = "a program of its own" if wanted is Foreign.COMMAND else "Python code that comes with its model"
    raise NeedsHelp(
        f"{job.name}: runs {what}, and {stored.log.records[0].holder} queued it, not this home; where you trust all "
        f"who can write {context.daemon.store.properties.place}, let it",
        command=f"wake2vec-runner start --allow {wanted}",
    )


def foreign_code(spec: JobSpec) -> Foreign | None:
    if spec.phase == "command":
        return Foreign.COMMAND
    return Foreign.REMOTE_CODE if spec.model and spec.model.trust_remote_code else None


def fetch_inputs(context: SyncContext, stored: JobInStore, job: Job) -> None:
    """Every text is here and is the one that was frozen; a missing one comes from the store."""
    folder = context.daemon.settings.inputs
    files = from_table(genesis(stored.log.records).get("stored_inputs", {}))
    for item in job.inputs:
        path = folder / item.sha256
        if item.role == "model" or (path.is_file() and path.stat().st_size == item.size):
            continue
        if item.sha256 not in files:
            raise NeedsHelp(
                f"{job.name}: its {item.role} {item.name} is neither here nor in the store; enqueue it again"
            )
        fetch_files(context.daemon.store, {item.sha256: files[item.sha256]}, folder)
    for item in job.inputs:
        path = folder / item.sha256
        if item.role != "model" and (found := digest_file(path).sha256) != item.sha256:
            raise NeedsHelp(
                f"{path}: the {item.role} {item.name} changed after it was frozen (sha256 {found[:12]}…, "
                f"expected {item.sha256[:12]}…); remove that file, and the store's copy takes its place"
            )


def restore_vocabulary(context: SyncContext, stored: JobInStore, run: RunDir) -> None:
    """Have the vocabulary that the log names, byte for byte: a missing or damaged one comes from the store."""
    files = vocabulary_of(stored)
    if not files or is_whole(run.root, files):
        return
    arriving = run.root / "vocab.arriving"
    fetch_files(context.daemon.store, files, arriving)
    put_in_place(arriving / run.vocab.name, run.vocab)
    shutil.rmtree(arriving)


def vocabulary_of(stored: JobInStore) -> dict[str, StoredFile]:
    """Its files, by their paths below the run directory; none before they are durable."""
    return from_table((stored.noted("vocab") or {}).get("files", {}))


def final_files(stored: JobInStore) -> dict[str, StoredFile]:
    """Of the result that DONE names."""
    files: dict[str, Any] = stored.log.records[-1].payload["files"]
    return from_table({name: file for name, file in files.items() if name.startswith(FINAL)})


def is_whole(root: Path, files: Mapping[str, StoredFile]) -> bool:
    return all((root / name).is_file() and digest_file(root / name).sha256 == files[name].sha256 for name in files)


def restore_checkpoint(context: SyncContext, stored: JobInStore, job: Job, run: RunDir, now: float) -> None:
    """Have at least the newest durable checkpoint that can be read; go back in the log until one can."""
    found = commits(stored.log.records)
    _drop_what_a_rival_passed(context, job, run, found, now)
    report: list[str] = []
    here = newest_verified(run, job.fingerprint, report)
    for line in report:
        ledger.add_event(context.daemon.queue, now, "corrupt", f"{job.name}: {line}", job=job.name)
    reached = here[1].step if here else -1
    quarantined = _quarantined(stored)
    wanted = [one for one in found if one.payload["manifest"]["sha256"] not in quarantined]
    for commit in reversed(wanted):
        step = int(commit.payload["step"])
        if step <= reached or _fetch(context, job, commit, run, now):
            return
    if wanted and reached < 0:
        raise NeedsHelp(
            f"{job.name}: none of its {len(wanted)} durable checkpoints can be read from "
            f"{context.daemon.store.properties.place}; see whether files were removed there by hand. To train it again "
            "from the start, enqueue it under another name"
        )


def _quarantined(stored: JobInStore) -> set[str]:
    payloads = [record.payload for record in stored.log.records if record.kind == "REGIME"]
    return {str(one["manifest_sha256"]) for one in payloads if one.get("what") == "quarantine"}


def _fetch(context: SyncContext, job: Job, commit: Record, run: RunDir, now: float) -> bool:
    """Bring one checkpoint here; False when the store does not have it whole any more."""
    step = int(commit.payload["step"])
    folder = run.checkpoint(step)
    if folder.is_dir() and manifest_sha256_or_none(folder) != commit.payload["manifest"]["sha256"]:
        delete_folder(folder)
    size = sum(int(part["size"]) for part in commit.payload["parts"].values())
    coming = UploadNote(job=job.name, name=folder.name, done_bytes=0, size=size, started_at=now, is_coming=True)
    sending = Sending(context.daemon.settings.home, coming, context.clock)
    try:
        fetch_checkpoint(context.daemon.store, commit, run.checkpoints, progress=sending.report)
    except (NotStored, Damaged, CheckpointCorrupt) as error:
        text = f"{job.name}: checkpoint {step} in the store cannot be used, going back one: {error}"
        ledger.add_event(context.daemon.queue, now, "corrupt", text, job=job.name)
        checkpoints.mark_gone_from_store(context.daemon.queue, job.name, step)
        return False
    finally:
        sending.end()
    failpoint("prepare.fetched")
    ledger.add_event(
        context.daemon.queue, now, "restored", f"{job.name}: checkpoint {step} came from the store", job=job.name
    )
    return True


def manifest_sha256_or_none(folder: Path) -> str | None:
    try:
        return manifest_sha256(folder)
    except FileNotFoundError:
        return None


def _drop_what_a_rival_passed(context: SyncContext, job: Job, run: RunDir, found: list[Record], now: float) -> None:
    """Another runner committed last: what this home saved beside that, and never committed, is not the job's past.

    What it saved on top of that commit is: each manifest names the one before it.
    """
    if not found or found[-1].holder == context.daemon.holder:
        return
    committed = {one.payload["manifest"]["sha256"] for one in found}
    kept = committed | built_on(run, found[-1].payload["manifest"]["sha256"])
    for step in saved_steps(run):
        if manifest_sha256(run.checkpoint(step)) not in kept:
            delete_folder(run.checkpoint(step))
            text = f"{job.name}: checkpoint {step} of this home was dropped: {found[-1].holder} has gone on without it"
            ledger.add_event(context.daemon.queue, now, "dropped", text, job=job.name)


def built_on(run: RunDir, sha256: str) -> set[str]:
    """The manifest of that sha256 and those saved here that descend from it, by what each says of the one before."""
    family = {sha256}
    for step in reversed(saved_steps(run)):
        table = read_json(run.checkpoint(step) / MANIFEST)
        if isinstance(table, dict) and table.get("parent") in family:
            family.add(manifest_sha256(run.checkpoint(step)))
    return family


def restore_source(context: SyncContext, stored: JobInStore, job: Job, run: RunDir, now: float) -> Source:
    """The checkpoint that P2 starts from, chosen once, noted in the log, and copied into the run directory."""
    assert job.after is not None, job.name
    origin_job = jobs.get_job(context.daemon.queue, job.after)
    origin = open_job_log(context, origin_job, now)
    noted = stored.noted("source")
    if noted is None:
        origin.log.refresh()
        step = _source_step(context, origin, origin_job, job)
        commit = _commit_of(origin, step, job)
        noted = {"job": job.after, "step": step, "manifest_sha256": commit.payload["manifest"]["sha256"]}
        stored.note("source", **noted)
    source = Source(job=str(noted["job"]), step=int(noted["step"]), manifest_sha256=str(noted["manifest_sha256"]))
    _copy_source(context, origin, source, run)
    return source


def _source_step(context: SyncContext, origin: JobInStore, origin_job: Job, job: Job) -> int:
    rows = job.spec.rows
    if isinstance(rows, int):
        return rows
    if not is_done(origin.log.records):
        raise NeedsHelp(f"{job.name}: {origin_job.name} is not done in the store yet")
    done: dict[str, Any] = origin.log.records[-1].payload
    best = done.get("best_step") or best_step(context.daemon.run(origin_job.name))
    return int(best) if rows == "best" and best else int(done["step"])


def _commit_of(origin: JobInStore, step: int, job: Job) -> Record:
    found = [one for one in commits(origin.log.records) if int(one.payload["step"]) == step]
    if not found:
        steps = ", ".join(str(one.payload["step"]) for one in commits(origin.log.records))
        raise NeedsHelp(
            f"{job.name}: {origin.job} has no durable checkpoint {step}; durable are {steps}; change rows ="
        )
    return found[-1]


def _copy_source(context: SyncContext, origin: JobInStore, source: Source, run: RunDir) -> None:
    """`source/checkpoint-<step>` and `source/vocab`: linked from the other run directory, or fetched."""
    there = context.daemon.run(source.job)
    folder = run.source / f"checkpoint-{source.step}"
    if not _is_that(folder, source.manifest_sha256):
        shutil.rmtree(folder, ignore_errors=True)
        if _is_that(there.checkpoint(source.step), source.manifest_sha256):
            link_folder(there.checkpoint(source.step), folder)
        else:
            commit = next(
                one
                for one in commits(origin.log.records)
                if one.payload["manifest"]["sha256"] == source.manifest_sha256
            )
            fetch_checkpoint(context.daemon.store, commit, run.source)
    if not (run.source / "vocab" / run.id_map.name).is_file() or not is_whole(run.source, vocabulary_of(origin)):
        restore_vocabulary(context, origin, there)
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
    arriving = target.with_name(f"{target.name}.arriving")
    shutil.rmtree(arriving, ignore_errors=True)
    make_directory(arriving.parent)
    shutil.copytree(folder, arriving, copy_function=_link_file)
    put_in_place(arriving, target)


def _link_file(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
