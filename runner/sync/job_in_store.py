"""One job's log in the store, and the lease on it while this runner works on the job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runner.context import DaemonContext
from runner.errors import Damaged, Fenced, Loss, NotStored, StoreLost, StoreUnavailable
from runner.queue import checkpoints, jobs
from runner.queue.changing import follow, unknown_changes
from runner.queue.history import Mark
from runner.queue.ledger import add_event, in_words
from runner.queue.rows import Job
from runner.queue.view import Sight
from runner.store.known import ROOT, KnownLogs
from runner.store.lease import BEAT_SECONDS, Lease, Watch, acquire
from runner.store.log import Log
from runner.store.presence import check_record
from runner.store.publish import StoredFile, forget, publish_files, sweep
from runner.store.records import commits, ends, genesis, is_done, regimes
from runner.store.retry import Busy
from runner.store.root import add_job, open_job, open_root
from runner.store.root import jobs as entries_of
from runner.store.space import ORPHAN_SECONDS
from runner.trouble import Cause, Trouble
from wake2vec.contract.files import digest_file

HICCUP_SECONDS = 5.0  # a store that is busy for less is no news


@dataclass(kw_only=True)
class JobInStore:
    job: str
    log: Log
    watch: Watch = field(default_factory=Watch)
    lease: Lease | None = None
    beat_at: float = 0.0  # monotonic
    used_at: float = 0.0  # monotonic: when the job last had need of the lease
    swept_at: float = -1e9  # monotonic
    walked_at: float = -1e9  # monotonic: when the log was last read from its beginning
    confirmed_at: float = -1e9  # monotonic: when the store last showed all of it
    rested_at: float | None = None  # the `changed_at` of the state that the log was last told

    @property
    def epoch(self) -> int:
        assert self.lease is not None, f"{self.job}: written to without a lease"
        return self.lease.epoch

    def note(self, what: str, **more: Any) -> None:
        """Add a REGIME: something about the job that a later session must know."""
        self.log.append("REGIME", {"what": what, **more}, epoch=self.epoch)

    def noted(self, what: str) -> dict[str, Any] | None:
        """The newest REGIME of that kind."""
        found = [record.payload for record in regimes(self.log.records) if record.payload.get("what") == what]
        return found[-1] if found else None


@dataclass(kw_only=True)
class SyncContext:
    """The sync loop's own memory."""

    daemon: DaemonContext
    clock: Callable[[], float] = time.monotonic
    root: Log | None = None
    opened: dict[str, JobInStore] = field(default_factory=dict)
    retry_at: dict[str, float] = field(default_factory=dict)  # monotonic
    troubles: dict[str, Trouble] = field(default_factory=dict)  # what keeps a job from the store now
    taken: set[str] = field(default_factory=set)  # held once: a person's word to take over does not last for ever
    mirrored: Mark | None = None  # how far the newest copy of the queue in the store goes
    mirrored_at: float = -1e9  # monotonic
    looked_at: float = -1e9  # monotonic: at the root
    swept_inputs_at: float = -1e9  # monotonic
    looked_at_done: float = -1e9  # monotonic: at a job that is over
    known: KnownLogs = field(init=False)
    trouble_at: float = -1e9  # monotonic: when the store was last in the way of a job
    busy: threading.Lock = field(default_factory=threading.Lock)  # held for the length of a round
    sight: Sight = field(init=False)

    def __post_init__(self) -> None:
        self.sight = Sight(self.daemon.queue)
        self.known = KnownLogs(self.daemon.settings.home, self.daemon.store.properties.place)

    @property
    def journal(self) -> Path:
        return self.daemon.settings.home / "transfers"

    def trouble_of(self, job: str) -> Trouble | None:
        """What keeps the job from the store: its own trouble, or a store that is being asked again and again."""
        return self.troubles.get(job) or self.store_trouble()

    def store_trouble(self) -> Trouble | None:
        busy: Busy | None = getattr(self.daemon.store, "busy", None)
        if busy is None or busy.again_at - busy.since_at < HICCUP_SECONDS:
            return None
        return Trouble(job=None, cause=Cause.STORE, said=busy.said, since_at=busy.since_at, again_at=busy.again_at)

    @property
    def troubles_now(self) -> tuple[Trouble, ...]:
        """All that is in the way at this moment, of the store and of this machine."""
        obstacles = list(self.daemon.obstacles.items())
        here = [Trouble(job=job, cause=Cause.MACHINE, said=f"{job}: {said}", since_at=0.0) for job, said in obstacles]
        lost = [
            Trouble(job=None, cause=Cause.LOST, said=str(error), command=error.command, since_at=0.0)
            for job, error in list(self.daemon.lost.items())
            if job not in self.troubles
        ]
        return (*list(self.troubles.values()), *lost, *here, *filter(None, [self.store_trouble()]))

    def root_log(self) -> Log:
        """Begun only by a home that never had one. Raises StoreLost when it is not the one that this home knows."""
        if self.root is None:
            copy, queue = self.known.read(ROOT), self.daemon.queue
            names = [job.name for job in jobs.list_jobs(queue)]
            has_brought = any(checkpoints.log_state(queue, name).created_at for name in names)
            try:
                root = open_root(
                    self.daemon.store, holder=self.daemon.holder, may_begin=copy is None and not has_brought
                )
            except Damaged as error:
                raise StoreLost(str(error), loss=Loss.TORN) from error
            copy = copy if has_brought else None  # who brought nothing can miss nothing
            if copy is not None and copy.records[0].nonce != root.records[0].nonce:
                text = f"{root.store.properties.place}: another store lies there than the one that this home knows"
                raise StoreLost(text, loss=Loss.OTHER)
            if copy is not None:
                check_record(root.store, copy.tail_id, copy.tail.nonce, f"record {copy.tail.seq} of its root log")
            self.root = root
        return self.root


def open_job_log(context: SyncContext, job: Job, now: float) -> JobInStore:
    """The job's log, begun in the store with all that another machine needs to run the job."""
    found = context.opened.get(job.name)
    if found is None and (known := open_known(context, job)) is not None:
        found = context.opened[job.name] = JobInStore(job=job.name, log=known)
    if found is None:
        root = context.root_log()
        body = {
            "job": job.spec.model_dump(mode="json"),
            "fingerprint": job.fingerprint,
            "inputs": [item.model_dump() for item in job.inputs],
            "stored_inputs": _publish_inputs(context, job),
            "created_at": job.created_at,
        }
        log = add_job(root, job.name, fingerprint=job.fingerprint, genesis=body)
        for item in job.inputs:
            forget(context.journal, _input_folder(item.sha256))
        found = context.opened[job.name] = JobInStore(job=job.name, log=log)
        checkpoints.set_log_state(context.daemon.queue, job.name, now, created_at=log.records[0].written_at)
    return found


def open_known(context: SyncContext, job: Job) -> Log | None:
    """The job's log, not less than this home has seen of it; None when this home never brought the job there."""
    root, name = context.root_log(), f"jobs/{job.name}"
    copy, state = context.known.read(name), checkpoints.log_state(context.daemon.queue, job.name)
    if copy is None and state.created_at is None:
        return None
    root.refresh()
    entry, place = entries_of(root.records).get(job.name), context.daemon.store.properties.place
    if entry is None or context.daemon.store.stat(str(entry.payload["genesis_id"])) is None:
        raise StoreLost(f"{place}: the log of {job.name} is gone: its folder was deleted there, or the store is older")
    try:
        log = open_job(root, entry)
    except Damaged as error:
        raise StoreLost(str(error), loss=Loss.TORN) from error
    if copy is not None and copy.records[0].nonce != log.records[0].nonce:
        match_rows(context, job.name, log)  # somebody wrote it anew
    elif copy is not None:
        check_record(
            context.daemon.store, copy.tail_id, copy.tail.nonce, f"record {copy.tail.seq} of the log of {job.name}"
        )
    if unknown := _rows_beyond(context, job.name, log) or (
        ["its end"] if state.done_at and not ends(log.records) else []
    ):
        text = f"{place}: the log of {job.name} ends before {', '.join(unknown)}: the store is older than this home"
        raise StoreLost(text, loss=Loss.OLDER)
    return log


def _rows_beyond(context: SyncContext, job: str, log: Log) -> list[str]:
    """Checkpoints that the queue counts as durable and the log does not name."""
    named = {str(one.payload["manifest"]["sha256"]) for one in commits(log.records)}
    rows = checkpoints.list_checkpoints(context.daemon.queue, job)
    return [f"checkpoint {one.step}" for one in rows if one.durable_at is not None and one.manifest_sha256 not in named]


def match_rows(context: SyncContext, job: str, log: Log) -> None:
    """Have the queue count as durable, and as done, only what this log says."""
    queue, named = context.daemon.queue, {str(one.payload["manifest"]["sha256"]): one for one in commits(log.records)}
    for row in checkpoints.list_checkpoints(queue, job):
        if row.durable_at is not None and row.manifest_sha256 not in named:
            checkpoints.mark_gone_from_store(queue, job, row.step)
    first, last = log.records[0], log.records[-1]
    done_at = last.written_at if is_done(log.records) else None
    checkpoints.set_log_state(
        queue, job, first.written_at, created_at=first.written_at, done_at=done_at, problem="", remedy="", fenced=False
    )


def _input_folder(sha256: str) -> str:
    return f"inputs/{sha256[:16]}"


def _publish_inputs(context: SyncContext, job: Job) -> dict[str, Any]:
    """Store each text and word list once, whatever number of jobs share it; a model stays where it is."""
    copies = [copy for name in context.known.names() if (copy := context.known.read(name)) is not None]
    known = {
        sha256: StoredFile(**table)
        for records in [*(copy.records for copy in copies), *(stored.log.records for stored in context.opened.values())]
        for sha256, table in genesis(records).get("stored_inputs", {}).items()
    }
    found = {}
    for item in job.inputs:
        path = context.daemon.settings.inputs / item.sha256
        if item.role == "model" or not path.is_file():
            continue
        sent = publish_files(
            context.daemon.store, {item.sha256: path}, {item.sha256: digest_file(path)},
            folder=_input_folder(item.sha256), known=known, journal=context.journal,
        )  # fmt: skip
        found[item.sha256] = asdict(sent[item.sha256])
    return found


def hold(context: SyncContext, stored: JobInStore, now: float, monotonic: float) -> bool:
    """Have the lease, and show that this runner lives. False when the log says that the job is done, and nobody here
    wants more of it.

    Raises LeaseHeld while another runner is at work, Fenced when it took over.
    """
    daemon = context.daemon
    stored.used_at = monotonic
    if stored.lease is None:
        stored.log.refresh()
        take_changes(context, stored, now)
        if is_done(stored.log.records) and not _open_again(context, stored):
            return False
        stored.lease = acquire(
            stored.log, stored.watch, at=monotonic,
            take_over=daemon.take_over and stored.job not in context.taken,
            ttl_seconds=daemon.settings.numbers.lease_seconds,
        )  # fmt: skip
        stored.beat_at = -1e9
        context.taken.add(stored.job)
        checkpoints.set_log_state(
            daemon.queue, stored.job, now, epoch=stored.lease.epoch, problem="", remedy="", fenced=False
        )
    if monotonic - stored.swept_at > ORPHAN_SECONDS:  # what killed uploads left is old enough an hour later
        sweep(daemon.store, stored.log, journal=context.journal, now=now)
        stored.swept_at = monotonic
    beat(context, stored, monotonic)
    return True


def take_changes(context: SyncContext, stored: JobInStore, now: float) -> None:
    """Do here what other homes have changed of the job since."""
    queue = context.daemon.queue
    for change in unknown_changes(queue, stored.job, [record.payload for record in regimes(stored.log.records)]):
        follow(queue, stored.job, change, now)
        add_event(
            queue, now, "regime", f"{stored.job}: another runner has changed it: {in_words(change)}", job=stored.job
        )


def _open_again(context: SyncContext, stored: JobInStore) -> bool:
    """Give a job that is done more steps, where a person here wants them; False when nobody does.

    One record does it, behind DONE, where exactly one writer can win; the lease is taken after it, as always.
    """
    end = int(stored.log.records[-1].payload["step"])
    for one in context.sight.view.regimes:
        if one.job == stored.job and one.change.get("what") == "extend" and int(one.change["steps"]) > end:
            body = one.change | {"from_step": one.from_step}
            stored.log.append_shared("REGIME", body, unless=lambda found: None if is_done(found) else found[-1])
            return True
    return False


def beat(context: SyncContext, stored: JobInStore, monotonic: float) -> None:
    interval = min(BEAT_SECONDS, context.daemon.settings.numbers.lease_seconds / 4)
    if stored.lease is None or monotonic - stored.beat_at < interval:
        return
    with suppress(StoreUnavailable, NotStored):  # a beat that is missed is harmless; the log decides
        stored.lease.beat({"session": context.daemon.session.machine, "platform": context.daemon.session.platform})
    stored.beat_at = monotonic


def give_back(context: SyncContext, stored: JobInStore, now: float) -> None:
    """Release the lease, so that the next runner need not wait."""
    if stored.lease is None:
        return
    with suppress(Fenced):  # somebody has it already
        stored.lease.release()
    stored.lease = None
    checkpoints.set_log_state(context.daemon.queue, stored.job, now, epoch=None)


def lose(context: SyncContext, job: str, now: float, reason: str) -> None:
    """Another runner has the job: forget the lease, and have the trainer stopped by the tick loop."""
    stored = context.opened.get(job)
    if stored is not None:
        stored.lease = None
    context.daemon.handover.take(job)
    remedy = "it goes on there; stop that runner first if this machine is to take the job"
    checkpoints.set_log_state(context.daemon.queue, job, now, epoch=None, fenced=True, problem=reason, remedy=remedy)


def stored_table(files: dict[str, StoredFile]) -> dict[str, Any]:
    return {name: asdict(file) for name, file in files.items()}


def from_table(table: dict[str, Any]) -> dict[str, StoredFile]:
    return {name: StoredFile(**file) for name, file in table.items()}
