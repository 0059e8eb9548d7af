"""The root log of a store: which jobs it holds, for a home that knows nothing but the store's address."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from runner.errors import JobExists
from runner.store.base import Store
from runner.store.lease import read_beat_at
from runner.store.log import Log
from runner.store.records import Record


def open_root(store: Store, *, holder: str, now: Callable[[], float] = time.time) -> Log:
    """The store's root log, begun by whoever comes first."""
    return Log.begin(store, name="", kind="ROOT", payload={}, holder=holder, first_id=store.root_id(), now=now)


def jobs(records: list[Record]) -> dict[str, Record]:
    """JOB records by the job's name, in the order they were added."""
    return {str(record.payload["job"]): record for record in records if record.kind == "JOB"}


def add_job(root: Log, job: str, *, fingerprint: str, genesis: dict[str, Any]) -> Log:
    """Begin the job's log and enter it in the root log; the same job twice is one job.

    Raises JobExists when the name is taken by a job with another fingerprint.
    """
    root.refresh()
    entry = jobs(root.records).get(job)
    if entry is None:
        log = Log.begin(root.store, name=f"jobs/{job}", kind="GENESIS", payload=genesis, holder=root.holder)
        payload = {"job": job, "fingerprint": fingerprint, "genesis_id": log.first_id, "head_id": log.head_id}
        entry = root.append_shared("JOB", payload, unless=lambda records: jobs(records).get(job))
    if entry.payload["fingerprint"] != fingerprint:
        raise JobExists(
            f"{job}: {root.store.properties.place} holds another job of that name, with other settings or texts; to "
            f"train yours beside it, `wake2vec-runner cancel {job}` and enqueue its file with --again",
            command=f"wake2vec-runner cancel {job}",
        )
    return open_job(root, entry)


def open_job(root: Log, entry: Record) -> Log:
    """The log of a job that the root log names, read from where the job's HEAD says that reading may start."""
    beat, _ = read_beat_at(root.store, str(entry.payload["head_id"]))
    hint = None if beat is None else beat.carrying_id
    return Log.open(root.store, str(entry.payload["genesis_id"]), holder=root.holder, hint=hint)
