"""Is what a log says still in the store: its newest records read back, and every object that a fresh home needs."""

from __future__ import annotations

import hashlib

from runner.errors import Damaged, Loss, NotStored, StoreBusy, StoreLost
from runner.store.base import Store
from runner.store.log import Log
from runner.store.publish import is_there
from runner.store.records import Record, StoredFile, is_done
from runner.store.root import jobs, open_job

IN_THE_BIN = "restore it there, and everything goes on by itself"
HINT = "it was deleted or replaced by hand, or this is another account, OAuth client, disk or folder than before"


def check_record(store: Store, id: str, nonce: str, what: str, seen: dict[str, str] | None = None) -> None:
    """Read one record back. Raises StoreLost when it is gone, in the bin or another; StoreBusy when nobody knows.

    `seen` has the md5 of records that were read before: where the store says the same, that is as good as the bytes.
    """
    place = f"{store.properties.place}: {what}"
    stat, seen = store.stat(id), {} if seen is None else seen
    if stat is not None and not stat.in_bin and stat.md5 is not None and stat.md5 == seen.get(id):
        return
    body = None if stat is None else store.read(id)
    if stat is None or body is None:
        raise StoreLost(f"{place} is gone: {HINT}")
    if stat.in_bin:
        raise StoreLost(f"{place} is in the bin", loss=Loss.BIN, remedy=IN_THE_BIN)
    if stat.md5 is not None and stat.md5 != hashlib.md5(body, usedforsecurity=False).hexdigest():
        raise StoreBusy(f"{place}: came with other bytes than the store says; it is read again")
    try:
        found = Record.from_bytes(body, place)
    except Damaged as error:
        raise StoreLost(str(error), loss=Loss.TORN) from error
    if found.nonce != nonce:
        raise StoreLost(f"{place} is another's: {HINT}", loss=Loss.OTHER)
    if stat.md5 is not None:
        seen[id] = stat.md5


def check_root(root: Log, *, tail: bool = True) -> None:
    """The first record says which store it is, the newest that it is not an older copy."""
    check_record(root.store, root.first_id, root.records[0].nonce, "its root record", root.seen)
    if tail and root.tail_id != root.first_id:
        check_tail(root, "the newest record of its root log")


def check_tail(log: Log, what: str) -> None:
    try:
        check_record(log.store, log.tail_id, log.records[-1].nonce, what, log.seen)
    except StoreLost as error:
        if error.loss is not Loss.GONE or log.store.stat(log.first_id) is None:
            raise
        raise StoreLost(f"{error}; what is there is older", loss=Loss.OLDER) from error


def check_walk(root: Log, job: str, log: Log) -> None:
    """Read both logs as a fresh home would: each must lead to the newest record that is known."""
    anew = Log.open(root.store, root.first_id, holder=root.holder)
    entry = jobs(anew.records).get(job)
    if entry is None or entry.job.genesis_id != log.first_id:
        raise StoreLost(f"{root.store.properties.place}: {job} is not in its list of jobs any more", loss=Loss.OLDER)
    try:
        found = open_job(anew, entry).records
    except (Damaged, NotStored) as error:
        raise StoreLost(str(error), loss=Loss.TORN) from error
    check_listed(anew)
    check_listed(log)
    if found[-1].seq < log.records[-1].seq:
        text = f"{root.store.properties.place}: the log of {job} has a gap after its record {found[-1].seq}"
        raise StoreLost(text, loss=Loss.TORN)


def check_listed(log: Log) -> None:
    """Every record that is needed is in its folder: one in the bin can be read, until the bin is emptied. A listing may
    lag, so what it lacks is asked for by its id."""
    ids = [log.first_id, *(record.next_id for record in log.records[:-1])]
    listed = {stat.id for stat in log.store.find(f"{log.name}/log".lstrip("/"))}
    for number, id in enumerate(ids):
        stat = None if id in listed else log.store.stat(id)
        if id not in listed and (stat is None or stat.in_bin):
            text = f"{log.store.properties.place}: record {number} of {log.name or 'its root log'} is "
            if stat is None:
                raise StoreLost(f"{text}gone", loss=Loss.TORN)
            raise StoreLost(f"{text}in the bin", loss=Loss.BIN, remedy=IN_THE_BIN)


def missing(store: Store, record: Record) -> dict[str, StoredFile]:
    """Those of its objects that are not there, or thrown away, or of another size."""
    return {name: file for name, file in record.files.items() if not is_there(store, file)}


def check_objects(log: Log) -> None:
    """Raises StoreLost that names the texts, vocabulary and results that are gone; checkpoints have others behind."""
    gone = [name for record in log.records if record.kind != "COMMIT" for name in missing(log.store, record)]
    if gone:
        listed = ", ".join(gone[:6]) + (f" and {len(gone) - 6} more" if len(gone) > 6 else "")
        what = "of its result" if is_done(log.records) else "that it needs"
        text = f"{log.store.properties.place}: {log.name}: files {what} are gone: {listed}"
        raise StoreLost(text, loss=Loss.TORN)
