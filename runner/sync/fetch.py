"""Bring what a job left in the store to this machine, for a person who wants to use it here."""

from __future__ import annotations

import shutil

from runner.context import Now, order_of
from runner.errors import NeedsHelp, NotStored
from runner.queue.rows import Job
from runner.store.presence import missing
from runner.store.publish import fetch_checkpoint, fetch_files
from runner.store.records import Record, commits, is_done
from runner.store.root import jobs as entries_of
from runner.store.root import open_job
from runner.sync.job_in_store import JobInStore, SyncContext
from runner.sync.prepare import FINAL, final_files, link_folder, prepare
from runner.sync.rebuild import still_stored
from wake2vec.contract.files import put_in_place, write_json
from wake2vec.contract.rundir import RunDir


def fetch_result(context: SyncContext, job: Job, step: str, now: Now) -> None:
    """Have here what the training core reads of a job: order, vocabulary, source, and its weights at `step`.

    `step` is a number, best, newest or final. Raises NeedsHelp when the store has no such step any more.
    """
    stored, run = _open_log(context, job), context.run(job.name)
    ready = prepare(stored, job, now)
    if ready.source is not None and not run.vocab.is_dir():
        link_folder(run.source / run.vocab.name, run.vocab)  # a P2 has the vocabulary of its P1
    if step == "final":
        _fetch_final(stored, run)
    elif step != "newest":
        commit = _commit_of(stored, step)
        fetch_checkpoint(context.store, commit, run.checkpoints)
        if step == "best":
            write_json(run.best, {"step": commit.commit.step})
    order = order_of(context.daemon, job, ready, attempt=ready.last_attempt, gpus=[0])
    write_json(run.order, order.model_dump(mode="json"))  # last: with it a run counts as being here


def is_here(run: RunDir, step: str) -> bool:
    """Whether nothing of this has to be fetched."""
    if not run.order.is_file():
        return False
    if step in ("final", "best"):
        return (run.final if step == "final" else run.best).exists()
    # a word that is no step at all is for the training core to refuse
    return not step.isdecimal() or run.checkpoint(int(step)).is_dir()


def _open_log(context: SyncContext, job: Job) -> JobInStore:
    """Its log as it is: whoever only looks begins none."""
    if job.name not in context.opened:
        root = context.root_log()
        root.refresh()
        entry = entries_of(root.records).get(job.name)
        if entry is None or entry.job.fingerprint != job.fingerprint:
            raise NeedsHelp(f"{job.name}: its result is neither here nor in {context.store.properties.place}")
        context.opened[job.name] = JobInStore(context=context, job=job.name, log=open_job(root, entry))
    return context.opened[job.name]


def _fetch_final(stored: JobInStore, run: RunDir) -> None:
    """`final/` appears whole. A job that did not come to its end has none."""
    if run.final.is_dir() or not stored.is_done:
        return
    if gone := [name for name in missing(stored.store, stored.records[-1]) if name.startswith(FINAL)]:
        kept = [one for one in still_stored(stored.store, stored.log) if not missing(stored.store, one)]
        there = ", ".join(f"--step {one.commit.step}" for one in kept)
        raise NotStored(
            f"{stored.job}: its result in {stored.store.properties.place} has lost {', '.join(gone)}; what can "
            f"still be had: {there or 'nothing there'}; run `wake2vec-runner repair` on the home that trained it"
        )
    arriving = run.root / "final.arriving"
    fetch_files(stored.store, final_files(stored), arriving)
    put_in_place(arriving / run.final.name, run.final)
    shutil.rmtree(arriving)


def _commit_of(stored: JobInStore, step: str) -> Record:
    records = stored.records
    wanted = records[-1].done.best_step if step == "best" and is_done(records) else step
    found = [one for one in commits(records) if str(one.commit.step) == str(wanted)]
    if not found:
        there = ", ".join(str(one.commit.step) for one in commits(records))
        raise NeedsHelp(f"{stored.job}: the store has no checkpoint of step {step}; committed were {there}")
    return found[-1]
