"""Delete what nothing needs any more: old checkpoints here, and their objects in the store."""

from __future__ import annotations

import shutil
from pathlib import Path

from runner.context import Now
from runner.queue import checkpoints
from runner.queue.rows import Job
from runner.retention import Keep, deletable_here, deletable_in_store
from runner.store.journal import set_aside
from runner.store.records import Record, commits, ends, stored_ids
from runner.store.root import jobs as entries_of
from runner.store.space import orphans
from runner.sync.job_in_store import JobInStore, SyncContext
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.files import read_json
from wake2vec.contract.manifest import MANIFEST, saved_steps
from wake2vec.contract.rundir import RunDir

INPUTS_DAY_SECONDS = 86400.0
KEPT_CORRUPT = 2


def best_step(run: RunDir) -> int | None:
    table = read_json(run.best)
    return int(table["step"]) if isinstance(table, dict) and isinstance(table.get("step"), int) else None


def keep_of(stored: JobInStore, job: Job) -> Keep:
    """A P2 may stand on what was best or last at an end that was not the last one."""
    others = stored.context.sight.view.jobs
    sources: set[object] = {other.spec.rows for other in others if other.after == job.name}
    sources |= {step for end in ends(stored.records) for step in (end.done.step, end.done.best_step)}
    return Keep(
        best=best_step(stored.run),
        sources=frozenset(step for step in sources if isinstance(step, int)),
        every_steps=job.spec.checkpoint.every_steps,
        milestones=job.spec.checkpoint.keep_milestones,
        last_step=job.steps,
    )


def prune(stored: JobInStore, job: Job) -> None:
    """The newest two stay everywhere; what is kept for good stays in the store."""
    rows = stored.context.sight.view.checkpoints(job.name)
    durable = [one.step for one in rows if one.durable_at is not None and not one.quarantined]
    keep = keep_of(stored, job)
    run = stored.run
    for step in deletable_here(saved_steps(run), durable, keep):
        delete_folder(run.checkpoint(step))
    for folder in sorted(run.checkpoints.glob("*.corrupt-*"), key=lambda path: path.stat().st_mtime)[:-KEPT_CORRUPT]:
        shutil.rmtree(folder, ignore_errors=True)
    drop = set(deletable_in_store(durable, keep))
    found = commits(stored.records)
    kept = {id for one in found if one.commit.step not in drop for id in one.commit.object_ids}
    for one in found:
        if (step := one.commit.step) in drop:
            if unneeded := [id for id in one.commit.object_ids if id not in kept]:
                stored.store.delete(*unneeded)
            failpoint("sync.pruned")
            checkpoints.mark_gone_from_store(stored.queue, job.name, step)


def sweep_inputs(context: SyncContext, now: Now) -> None:
    """Delete texts that no job in the store names, once they are a day old: what many starts and kills left."""
    root, store, named = context.root_log(), context.store, set_aside(context.journal)
    for entry in entries_of(root.records).values():
        body = store.read(entry.job.genesis_id)
        named |= set() if body is None else stored_ids([Record.from_bytes(body, entry.job.genesis_id)])
    if left := [stat.id for stat in orphans(store.find("inputs"), named, now=now.wall - INPUTS_DAY_SECONDS)]:
        store.delete(*left)


def delete_folder(folder: Path) -> None:
    """The manifest goes first here too, so that a kill in between leaves no checkpoint rather than a torn one."""
    (folder / MANIFEST).unlink(missing_ok=True)
    failpoint("prune.manifest")
    shutil.rmtree(folder, ignore_errors=True)
