"""Put back into a store what it has lost of this home's jobs: a log that is torn is written anew from what is left."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.errors import Damaged, Loss, NotStored, StoreLost, StoreUnavailable
from runner.queue import checkpoints, jobs
from runner.store.known import ROOT
from runner.store.log import Log
from runner.store.names import safe_path
from runner.store.presence import check_objects, check_record, check_root, check_tail, missing
from runner.store.publish import Stored, files_of, forget, publish_files
from runner.store.records import Record, commits, is_done, is_released, lease, newest_commit
from runner.store.root import add_entry, carry_entry, open_root
from runner.store.root import jobs as entries_of
from runner.sync.job_in_store import Care, match_rows, stored_table
from runner.sync.trust import trust
from wake2vec.contract.files import digest_file
from wake2vec.contract.manifest import MANIFEST

AGREED = "repair-agreed"
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A record to be written again, and the files of this home that take the place of objects which are gone."""

    record: Record
    again: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What can be put back of one job; `log` is set where it is whole and only has to be listed again."""

    job: str
    log: Log | None = None
    pieces: list[Piece] = field(default_factory=list)
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
        step = "no checkpoint" if newest is None else f"checkpoint {newest.payload['step']}"
        done = " and its result" if any(piece.record.kind == "DONE" for piece in self.pieces) else ""
        count = sum(len(piece.again) for piece in self.pieces)
        gone = f"; in neither place any more: {', '.join(self.lost)}" if self.lost else ""
        rival = f"; {self.rival} worked on it last and may hold more: repair it there if you can" if self.rival else ""
        return f"{self.job}: its log, {step}{done}; {count} files go there from this home{gone}{rival}"


def repair(care: Care, now: float, say: Say, *, agreed: bool) -> int:
    """Say, and when a person agreed do, what brings this home's jobs back; returns how many there were to be mended.

    A kill in between harms nothing: a new log counts once the root log names it, which comes last. Raises StoreLost
    when the store is in the bin, StoreUnavailable.
    """
    root = _root(care, say, agreed=agreed)
    plans = [plan for job in jobs_of(care) if (plan := make_plan(care, root, job)) is not None]
    stored: dict[str, Stored] = {}  # by sha256, so that what jobs share goes there once
    for plan in plans:
        say(plan.says)
        if agreed and root is not None and not plan.is_taken:
            _carry_out(care, root, plan, stored, now)
            trust(care, plan.job, now)
    if agreed and root is not None:
        care.known.keep(root)
        trust(care, ROOT, now)
    return len(plans)


def agree(home: Path) -> None:
    """Leave a person's word for the daemon that lives in this home."""
    (home / AGREED).touch()


def repair_when_agreed(care: Care, now: float, say: Say) -> None:
    if (care.work.settings.home / AGREED).exists():
        with suppress(StoreUnavailable):  # tried again in the next round
            repair(care, now, say, agreed=True)
            (care.work.settings.home / AGREED).unlink()


def _root(care: Care, say: Say, *, agreed: bool) -> Log | None:
    """The root log that is to count from here on; None where one would have to be begun."""
    store, copy = care.work.store, care.known.read(ROOT)
    entries = {} if copy is None else entries_of(copy.records)
    root = None
    try:
        root = open_root(store, holder=care.work.holder, may_begin=False)
        entries |= entries_of(root.records)
        check_root(root)
        if copy is not None and copy.records[0].nonce == root.records[0].nonce and store.properties.ids_once:
            check_record(store, copy.tail_id, copy.tail.nonce, "its root log")
    except (StoreLost, Damaged) as error:
        if isinstance(error, StoreLost) and error.loss is Loss.BIN:
            raise
        say(f"{store.properties.place}: a new root log is begun; the old one is gone, or has a gap")
        if not agreed:
            return None
        store.renew_root()
        root = open_root(store, holder=care.work.holder, is_mended=True)
    care.root = root
    care.keepers.clear()
    for job, entry in entries.items() if agreed else ():
        if job not in entries_of(root.records) and store.stat(str(entry.payload["genesis_id"])) is not None:
            carry_entry(root, entry)
    return root


def jobs_of(care: Care) -> list[str]:
    """The jobs that this home has brought to the store, and those that it has seen there."""
    queue = care.work.queue
    brought = [one.name for one in jobs.list_jobs(queue) if checkpoints.log_state(queue, one.name).created_at]
    seen = [name.partition("/")[2] for name in care.known.names()]
    return list(dict.fromkeys([*brought, *seen]))


def make_plan(care: Care, root: Log | None, job: str) -> Plan | None:
    """None when nothing of the job is missing. Looks only."""
    copy = care.known.read(f"jobs/{job}")
    entry = None if root is None else entries_of(root.records).get(job)
    there = None if entry is None else _read(care, str(entry.payload["genesis_id"]))
    ours = there if there is not None or copy is None else _read(care, copy.records[0].log)
    if ours is None and copy is None:
        return Plan(job=job)
    records = [] if copy is None else copy.records
    if ours is not None and (not records or ours.records[0].nonce == records[0].nonce or ours is there):
        if ours.records[0].payload["fingerprint"] != _fingerprint(care, job, records):
            return Plan(job=job, is_taken=True)
        if not records or ours.records[0].nonce != records[0].nonce or ours.records[-1].seq >= records[-1].seq:
            records = ours.records
            if _is_whole(care, ours):
                return None if ours is there else Plan(job=job, log=ours)
    pieces, lost = _pieces(care, job, records)
    held = lease(records)
    rival = held.holder if held and not is_released(records) and held.holder != care.work.holder else ""
    return Plan(job=job, pieces=pieces, lost=lost, rival=rival)


def _fingerprint(care: Care, job: str, records: list[Record]) -> str:
    """Of this home's job."""
    mine = [one.fingerprint for one in jobs.list_jobs(care.work.queue) if one.name == job]
    return mine[0] if mine else str(records[0].payload["fingerprint"])


def _read(care: Care, first_id: str) -> Log | None:
    try:
        return Log.open(care.work.store, first_id, holder=care.work.holder)
    except (NotStored, Damaged):
        return None


def _is_whole(care: Care, log: Log) -> bool:
    """Whether it has all that this home counts as durable, and every object that it needs."""
    job = log.name.partition("/")[2]
    named = {str(one.payload["manifest"]["sha256"]) for one in commits(log.records)}
    rows = checkpoints.list_checkpoints(care.work.queue, job)
    try:
        check_tail(log, "its newest record")
        if (copy := care.known.read(log.name)) is not None and copy.records[0].nonce == log.records[0].nonce:
            check_record(log.store, copy.tail_id, copy.tail.nonce, "a record of it")
        check_objects(log)
    except StoreLost:
        return False
    ended = checkpoints.log_state(care.work.queue, job).done_at is None or is_done(log.records)
    return ended and all(row.manifest_sha256 in named for row in rows if row.durable_at is not None)


def _pieces(care: Care, job: str, records: list[Record]) -> tuple[list[Piece], list[str]]:
    """What of these records can stand in a new log, and what is in neither place any more."""
    rows = {row.manifest_sha256 for row in checkpoints.list_checkpoints(care.work.queue, job) if row.durable_at}
    newest, pieces, lost = newest_commit(records), [], []
    for record in records:
        if record.kind not in ("GENESIS", "REGIME", "COMMIT", "DONE"):
            continue
        if record.kind == "COMMIT" and record is not newest and record.payload["manifest"]["sha256"] not in rows:
            continue  # pruned long ago
        gone = missing(care.work.store, record)
        again = {name: path for name, file in gone.items() if (path := _here(care, job, record, name, file))}
        if len(again) == len(gone) or record.kind == "GENESIS":
            pieces.append(Piece(record=record, again=again))
        if len(again) < len(gone):
            lost.append(_called(record, [name for name in gone if name not in again]))
    return pieces, lost


def _called(record: Record, names: list[str]) -> str:
    if record.kind == "COMMIT":
        return f"checkpoint {record.payload['step']}"
    return f"{'its result' if record.kind == 'DONE' else 'files'} ({', '.join(names[:4])})"


def _here(care: Care, job: str, record: Record, name: str, file: Stored) -> Path | None:
    """The same bytes on this machine, proved by their hash."""
    run = care.work.run(job)
    folder = run.root
    if record.kind == "GENESIS":
        folder = care.work.settings.inputs
    elif record.kind == "COMMIT":
        folder = run.checkpoint(int(record.payload["step"]))
    path = safe_path(folder, name)
    return path if path.is_file() and digest_file(path) == file.digest else None


def _carry_out(care: Care, root: Log, plan: Plan, stored: dict[str, Stored], now: float) -> None:
    log = plan.log or _write_anew(care, plan, stored)
    if log is None:
        _begin_anew(care, plan.job, now)
        return
    add_entry(root, plan.job, log, str(log.records[0].payload["fingerprint"]))
    if plan.job in [job.name for job in jobs.list_jobs(care.work.queue)]:
        match_rows(care, plan.job, log)
        for one in commits(log.records):
            size = sum(int(part["size"]) for part in one.payload["parts"].values())
            checkpoints.mark_durable(
                care.work.queue, plan.job, int(one.payload["step"]),
                manifest_sha256=one.payload["manifest"]["sha256"], size=size, now=now,
            )  # fmt: skip
    care.known.keep(log)
    for folder in {_folder(plan.job, piece.record) for piece in plan.pieces}:
        forget(care.journal, folder)


def _write_anew(care: Care, plan: Plan, stored: dict[str, Stored]) -> Log | None:
    """A log with everything that is left; nobody reads it before the root log names it."""
    if not plan.pieces:
        return None
    first, *others = [(piece.record.kind, _payload(care, plan.job, piece, stored)) for piece in plan.pieces]
    own = {key: value for key, value in first[1].items() if key not in ("name", "head_id")}
    log = Log.begin(care.work.store, name=f"jobs/{plan.job}", kind="GENESIS", payload=own, holder=care.work.holder)
    log.append("LEASE", {}, epoch=1)
    for kind, payload in others:
        log.append(kind, payload, epoch=1)
    if not is_done(log.records):
        log.append("RELEASE", {}, epoch=1)
    return log


def _payload(care: Care, job: str, piece: Piece, stored: dict[str, Stored]) -> dict[str, Any]:
    """What the record says, with the ids of the objects that were stored again."""
    record, store = piece.record, care.work.store
    digests = {name: digest_file(path) for name, path in piece.again.items()}
    again = publish_files(
        store, piece.again, digests, folder=_folder(job, record), known=stored, journal=care.journal
    ) if piece.again else {}  # fmt: skip
    stored.update({file.sha256: file for file in again.values()})
    gone = missing(store, record) if piece.again or record.kind == "GENESIS" else {}
    files = {
        name: again.get(name, file) for name, file in files_of(record).items() if name in again or name not in gone
    }
    table = stored_table(files)
    if record.kind == "GENESIS":
        return {**record.payload, "stored_inputs": table}
    if record.kind == "COMMIT":
        parts = {name: one for name, one in table.items() if name != MANIFEST}
        return {**record.payload, "parts": parts, "manifest": table[MANIFEST]}
    return {**record.payload, "files": table} if table else record.payload


def _folder(job: str, record: Record) -> str:
    if record.kind == "COMMIT":
        return f"jobs/{job}/checkpoints/checkpoint-{record.payload['step']}"
    return "inputs/repaired" if record.kind == "GENESIS" else f"jobs/{job}/files/repaired"


def _begin_anew(care: Care, job: str, now: float) -> None:
    """Nobody knows the old log: the sync loop brings the job there as if it had never been."""
    queue = care.work.queue
    for row in checkpoints.list_checkpoints(queue, job):
        checkpoints.mark_gone_from_store(queue, job, row.step)
    checkpoints.set_log_state(queue, job, now, created_at=None, done_at=None, problem="", remedy="", fenced=False)
