"""The root log of a store: which jobs it holds, for a home that knows nothing but the store's address."""

from __future__ import annotations

import time
from collections.abc import Callable

from runner.errors import JobExists, StoreLost
from runner.store.base import Store
from runner.store.lease import read_beat_at
from runner.store.log import Log
from runner.store.names import log_name
from runner.store.records import Genesis, JobEntry, Record


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
    return {record.job.job: record for record in records if record.kind == "JOB"}


def add_job(root: Log, job: str, genesis: Genesis) -> Log:
    """Begin the job's log and enter it in the root log; the same job twice is one job.

    Raises JobExists when the name is taken by a job with another fingerprint.
    """
    root.refresh()
    entry = before = jobs(root.records).get(job)
    if entry is None or root.store.stat(entry.job.genesis_id) is None:  # its log was deleted: a free name
        body = genesis.to_payload()
        log = Log.begin(root.store, name=log_name(job), kind="GENESIS", payload=body, holder=root.holder)
        entry = _enter(root, job, log, genesis.fingerprint, before)
    if entry.job.fingerprint != genesis.fingerprint:
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
    if before is None or before.job.genesis_id != log.first_id:
        _enter(root, job, log, fingerprint, before)


def _enter(root: Log, job: str, log: Log, fingerprint: str, before: Record | None) -> Record:
    entry = JobEntry(job=job, fingerprint=fingerprint, genesis_id=log.first_id, head_id=log.head_id)
    return root.append_shared("JOB", entry.to_payload(), unless=_newer(job, before))


def carry_entry(root: Log, entry: Record) -> None:
    """List a job of another root log, unless it is listed."""
    root.append_shared("JOB", entry.payload, unless=_newer(entry.job.job, None))


def _newer(job: str, before: Record | None) -> Callable[[list[Record]], Record | None]:
    """The entry of a job that somebody added since."""

    def find(records: list[Record]) -> Record | None:
        found = jobs(records).get(job)
        return None if found is None or (before is not None and found.nonce == before.nonce) else found

    return find


def open_job(root: Log, entry: Record) -> Log:
    """The log of a job that the root log names, read from where the job's HEAD says that reading may start."""
    beat, _ = read_beat_at(root.store, entry.job.head_id)
    hint = None if beat is None else beat.carrying_id
    return Log.open(root.store, entry.job.genesis_id, holder=root.holder, hint=hint)
