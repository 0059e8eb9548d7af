"""Put back into a store what it has lost of this home's jobs: a log that is torn is written anew from what is left."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from runner.context import Now
from runner.errors import Damaged, Loss, NotStored, StoreLost, StoreUnavailable
from runner.queue import checkpoints, jobs
from runner.store.known import ROOT
from runner.store.log import Log
from runner.store.names import log_name, safe_path
from runner.store.presence import check_listed, check_objects, check_record, check_root, check_tail, missing
from runner.store.publish import forget, publish_files
from runner.store.records import Record, StoredFile, commits, is_done, is_released, lease, lease_epoch, newest_commit
from runner.store.root import add_entry, carry_entry, open_root
from runner.store.root import jobs as entries_of
from runner.sync.job_in_store import JobInStore, SyncContext
from runner.sync.opening import beyond, match_rows
from runner.sync.trust import trust
from wake2vec.contract.files import digest_file
from wake2vec.contract.manifest import MANIFEST

AGREED = "repair-agreed"
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class LostRecord:
    """A record to be written again, and the files of this home that take the place of objects which are gone."""

    record: Record
    again: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What can be put back of one job; `log` is set where it is whole and only has to be listed again."""

    job: str
    log: Log | None = None
    pieces: list[LostRecord] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    is_taken: bool = False
    rival: str = ""  # who last worked on it, when that was another home

    @property
    def says(self) -> str:
        if self.is_taken:
            return f"{self.job}: the name is taken there by another job; it stays on this machine"
        if not self.pieces and self.log is None:
            return f"{self.job}: all that this home holds goes there at the next start"
        if self.log is not None:
            return f"{self.job}: its log is there, whole; it is listed again"
        newest = newest_commit([piece.record for piece in self.pieces])
        step = "no checkpoint" if newest is None else f"checkpoint {newest.commit.step}"
        done = " and its result" if any(piece.record.kind == "DONE" for piece in self.pieces) else ""
        count = sum(len(piece.again) for piece in self.pieces)
        gone = f"; in neither place any more: {', '.join(self.lost)}" if self.lost else ""
        rival = f"; {self.rival} worked on it last and may hold more: repair it there if you can" if self.rival else ""
        return f"{self.job}: its log, {step}{done}; {count} files go there from this home{gone}{rival}"


def repair(context: SyncContext, now: Now, say: Say, *, agreed: bool) -> int:
    """Say, and when a person agreed do, what brings this home's jobs back; returns how many there were to be mended.

    A kill in between harms nothing: a new log counts once the root log names it, which comes last. Raises StoreLost
    when the store is in the bin, StoreUnavailable.
    """
    root = _root(context, say, agreed=agreed)
    plans = [plan for job in jobs_of(context) if (plan := make_plan(context, root, job)) is not None]
    sent: dict[str, StoredFile] = {}  # by sha256, so that what jobs share goes there once
    for plan in plans:
        say(plan.says)
        if agreed and root is not None and not plan.is_taken:
            _carry_out(context, root, plan, sent, now)
            trust(context, plan.job, now)
    if agreed and root is not None:
        context.known.keep(root)
        trust(context, ROOT, now)
    return len(plans)


def agree(home: Path) -> None:
    """Leave a person's word for the daemon that lives in this home."""
    (home / AGREED).touch()


def repair_when_agreed(context: SyncContext, now: Now, say: Say) -> None:
    with suppress(StoreUnavailable):  # tried again in the next round
        repair(context, now, say, agreed=True)
        (context.home / AGREED).unlink()


def _root(context: SyncContext, say: Say, *, agreed: bool) -> Log | None:
    """The root log that is to count from here on; None where one would have to be begun."""
    store, copy = context.store, context.known.read(ROOT)
    entries = {} if copy is None else entries_of(copy.records)
    root = None
    try:
        root = open_root(store, holder=context.daemon.holder, may_begin=False)
        entries |= entries_of(root.records)
        check_root(root)
        check_listed(root)
        if copy is not None and copy.records[0].nonce == root.records[0].nonce and store.properties.ids_once:
            check_record(store, copy.tail_id, copy.tail.nonce, "its root log")
    except (StoreLost, Damaged) as error:
        if isinstance(error, StoreLost) and error.loss is Loss.BIN:
            raise
        if copy is None and not isinstance(error, Damaged) and not jobs_of(context):
            return None  # this home has never seen anything there
        say(f"{store.properties.place}: a new root log is begun; the old one is gone, or has a gap")
        if not agreed:
            return None
        store.renew_root()
        root = open_root(store, holder=context.daemon.holder, is_mended=True)
    context.root = root
    context.opened.clear()
    for job, entry in entries.items() if agreed else ():
        if job not in entries_of(root.records) and store.stat(entry.job.genesis_id) is not None:
            carry_entry(root, entry)
    return root


def jobs_of(context: SyncContext) -> list[str]:
    """The jobs that this home has brought to the store, and those that it has seen there."""
    queue = context.queue
    brought = [one.name for one in jobs.list_jobs(queue) if checkpoints.log_state(queue, one.name).created_at]
    return list(dict.fromkeys([*brought, *context.known.jobs()]))


def make_plan(context: SyncContext, root: Log | None, job: str) -> Repair | None:
    """None when nothing of the job is missing. Looks only."""
    copy = context.known.read(log_name(job))
    entry = None if root is None else entries_of(root.records).get(job)
    there = None if entry is None else _read(context, entry.job.genesis_id)
    ours = there if there is not None or copy is None else _read(context, copy.records[0].log)
    if ours is None and copy is None:
        return Repair(job=job)
    records = [] if copy is None else copy.records
    if ours is not None and (not records or ours.records[0].nonce == records[0].nonce or ours is there):
        if ours.records[0].genesis.fingerprint != _fingerprint(context, job, records):
            return Repair(job=job, is_taken=True)
        if not records or ours.records[0].nonce != records[0].nonce or ours.records[-1].seq >= records[-1].seq:
            records = ours.records
            if _is_whole(context, job, ours):
                return None if ours is there else Repair(job=job, log=ours)
    pieces, lost = _pieces(context, job, records)
    held = lease(records)
    rival = held.holder if held and not is_released(records) and held.holder != context.daemon.holder else ""
    return Repair(job=job, pieces=pieces, lost=lost, rival=rival)


def _fingerprint(context: SyncContext, job: str, records: list[Record]) -> str:
    """Of this home's job."""
    mine = [one.fingerprint for one in jobs.list_jobs(context.queue) if one.name == job]
    return mine[0] if mine else records[0].genesis.fingerprint


def _read(context: SyncContext, first_id: str) -> Log | None:
    try:
        return Log.open(context.store, first_id, holder=context.daemon.holder)
    except (NotStored, Damaged):
        return None


def _is_whole(context: SyncContext, job: str, log: Log) -> bool:
    """Whether it has all that this home counts as durable, and every object that it needs."""
    try:
        check_tail(log, "its newest record")
        check_listed(log)
        if (copy := context.known.read(log.name)) is not None and copy.records[0].nonce == log.records[0].nonce:
            check_record(log.store, copy.tail_id, copy.tail.nonce, "a record of it")
        check_objects(log)
    except StoreLost:
        return False
    return not beyond(context, job, log)


def _pieces(context: SyncContext, job: str, records: list[Record]) -> tuple[list[LostRecord], list[str]]:
    """What of these records can stand in a new log, and what is in neither place any more."""
    rows = {row.manifest_sha256 for row in checkpoints.list_checkpoints(context.queue, job) if row.durable_at}
    newest, pieces, lost = newest_commit(records), [], []
    for record in records:
        if record.kind not in ("GENESIS", "REGIME", "COMMIT", "DONE"):
            continue
        if record.kind == "COMMIT" and record is not newest and record.commit.manifest.sha256 not in rows:
            continue  # pruned long ago
        gone = missing(context.store, record)
        again = {name: path for name, file in gone.items() if (path := _here(context, job, record, name, file))}
        if len(again) == len(gone) or record.kind == "GENESIS":
            pieces.append(LostRecord(record=record, again=again))
        if len(again) < len(gone):
            lost.append(_called(record, [name for name in gone if name not in again]))
    return pieces, lost


def _called(record: Record, names: list[str]) -> str:
    if record.kind == "COMMIT":
        return f"checkpoint {record.commit.step}"
    return f"{'its result' if record.kind == 'DONE' else 'files'} ({', '.join(names[:4])})"


def _here(context: SyncContext, job: str, record: Record, name: str, file: StoredFile) -> Path | None:
    """The same bytes on this machine, proved by their hash."""
    run = context.run(job)
    folder = run.root
    if record.kind == "GENESIS":
        folder = context.daemon.settings.inputs
    elif record.kind == "COMMIT":
        folder = run.checkpoint(record.commit.step)
    path = safe_path(folder, name)
    return path if path.is_file() and digest_file(path) == file.digest else None


def _carry_out(context: SyncContext, root: Log, plan: Repair, sent: dict[str, StoredFile], now: Now) -> None:
    log = plan.log or _write_anew(context, plan, sent)
    if log is None:
        _begin_anew(context, plan.job, now)
        return
    add_entry(root, plan.job, log, log.records[0].genesis.fingerprint)
    if plan.job in [job.name for job in jobs.list_jobs(context.queue)]:
        match_rows(context, plan.job, log)
        stored = JobInStore(context=context, job=plan.job, log=log)
        for one in commits(log.records):
            stored.mark_durable(one.commit, now)
    context.known.keep(log)
    for folder in {_folder(plan.job, piece.record) for piece in plan.pieces}:
        forget(context.journal, folder)


def _write_anew(context: SyncContext, plan: Repair, sent: dict[str, StoredFile]) -> Log | None:
    """A log with everything that is left; nobody reads it before the root log names it."""
    if not plan.pieces:
        return None
    first, *others = [(piece.record.kind, _payload(context, plan.job, piece, sent)) for piece in plan.pieces]
    name, holder = log_name(plan.job), context.daemon.holder
    log = Log.begin(context.store, name=name, kind="GENESIS", payload=first[1], holder=holder)
    for kind, payload in others:
        if is_done(log.records):  # what stands behind an end gave the job more steps
            log.append_shared(kind, payload, unless=lambda found: None)
            continue
        if is_released(log.records):
            log.append("LEASE", {}, epoch=lease_epoch(log.records) + 1)
        log.append(kind, payload, epoch=lease_epoch(log.records))
    if not is_released(log.records):
        log.append("RELEASE", {}, epoch=lease_epoch(log.records))
    return log


def _payload(context: SyncContext, job: str, piece: LostRecord, sent: dict[str, StoredFile]) -> dict[str, Any]:
    """What the record says, with the ids of the objects that were stored again."""
    record, store, again = piece.record, context.store, dict[str, StoredFile]()
    if piece.again:
        again = publish_files(store, piece.again, folder=_folder(job, record), known=sent, journal=context.journal)
    sent.update({file.sha256: file for file in again.values()})
    gone = missing(store, record) if piece.again or record.kind == "GENESIS" else {}
    files = {name: again.get(name, file) for name, file in record.files.items() if name in again or name not in gone}
    if record.kind == "GENESIS":
        return replace(record.genesis, stored_inputs=files).to_payload()
    if record.kind == "COMMIT":
        manifest = files.pop(MANIFEST)
        return replace(record.commit, parts=files, manifest=manifest).to_payload()
    return (
        {**record.payload, "files": {name: asdict(file) for name, file in files.items()}} if files else record.payload
    )


def _folder(job: str, record: Record) -> str:
    if record.kind == "COMMIT":
        return f"{log_name(job)}/checkpoints/checkpoint-{record.commit.step}"
    return "inputs/repaired" if record.kind == "GENESIS" else f"{log_name(job)}/files/repaired"


def _begin_anew(context: SyncContext, job: str, now: Now) -> None:
    """Nobody knows the old log: the sync loop brings the job there as if it had never been."""
    queue = context.queue
    for row in checkpoints.list_checkpoints(queue, job):
        checkpoints.mark_gone_from_store(queue, job, row.step)
    checkpoints.set_log_state(queue, job, now.wall, created_at=None, done_at=None, **checkpoints.SOUND)
