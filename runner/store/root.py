"""The root log of a store: which jobs it holds, for a home that knows nothing but the store's address."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from runner.errors import JobExists, StoreLost
from runner.store.base import Store
from runner.store.lease import read_beat_at
from runner.store.log import Log
from runner.store.records import Record


def open_root(
    store: Store, *, holder: str, may_begin: bool = True, is_mended: bool = False, now: Callable[[], float] = time.time
) -> Log:
    """The store's root log, begun by whoever comes first.

    Raises StoreLost where there is none and this caller knows that there was one, or jobs lie there without it; not
    where a person has the root `is_mended`.
    """
    first_id = store.root_id()
    is_new = is_mended or store.read(first_id) is not None or (may_begin and not any(store.find("jobs")))
    if not is_new and store.read(first_id) is None:
        raise StoreLost(
            f"{store.properties.place}: its root record is gone: the folder was deleted, emptied or unmounted, or this "
            "is not the address that it had"
        )
    return Log.begin(store, name="", kind="ROOT", payload={}, holder=holder, first_id=first_id, now=now)


def jobs(records: list[Record]) -> dict[str, Record]:
    """JOB records by the job's name, in the order they were added."""
    return {str(record.payload["job"]): record for record in records if record.kind == "JOB"}


def add_job(root: Log, job: str, *, fingerprint: str, genesis: dict[str, Any]) -> Log:
    """Begin the job's log and enter it in the root log; the same job twice is one job.

    Raises JobExists when the name is taken by a job with another fingerprint.
    """
    root.refresh()
    entry = before = jobs(root.records).get(job)
    if entry is None or root.store.stat(str(entry.payload["genesis_id"])) is None:  # its log was deleted: a free name
        log = Log.begin(root.store, name=f"jobs/{job}", kind="GENESIS", payload=genesis, holder=root.holder)
        payload = {"job": job, "fingerprint": fingerprint, "genesis_id": log.first_id, "head_id": log.head_id}
        entry = root.append_shared("JOB", payload, unless=_newer(job, before))
    if entry.payload["fingerprint"] != fingerprint:
        raise JobExists(
            f"{job}: {root.store.properties.place} holds another job of that name, with other settings or texts; to "
            f"train yours beside it, `wake2vec-runner cancel {job}` and enqueue its file with --again",
            command=f"wake2vec-runner cancel {job}",
        )
    return open_job(root, entry)


def add_entry(root: Log, job: str, log: Log, fingerprint: str) -> None:
    """Have the root log name this log for the job, in place of another that cannot be used any more."""
    root.refresh()
    before = jobs(root.records).get(job)
    if before is None or before.payload["genesis_id"] != log.first_id:
        payload = {"job": job, "fingerprint": fingerprint, "genesis_id": log.first_id, "head_id": log.head_id}
        root.append_shared("JOB", payload, unless=_newer(job, before))


def carry_entry(root: Log, entry: Record) -> None:
    """List a job of another root log, unless it is listed."""
    root.append_shared("JOB", entry.payload, unless=_newer(str(entry.payload["job"]), None))


def _newer(job: str, before: Record | None) -> Callable[[list[Record]], Record | None]:
    """The entry of a job that somebody added since."""

    def find(records: list[Record]) -> Record | None:
        found = jobs(records).get(job)
        return None if found is None or (before is not None and found.nonce == before.nonce) else found

    return find


def open_job(root: Log, entry: Record) -> Log:
    """The log of a job that the root log names, read from where the job's HEAD says that reading may start."""
    beat, _ = read_beat_at(root.store, str(entry.payload["head_id"]))
    hint = None if beat is None else beat.carrying_id
    return Log.open(root.store, str(entry.payload["genesis_id"]), holder=root.holder, hint=hint)
