"""One job's log in the store, and the lease on it while this runner works on the job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runner.errors import Fenced, StoreUnavailable
from runner.queue import checkpoints
from runner.queue.history import Mark
from runner.queue.rows import Job
from runner.store.lease import BEAT_SECONDS, Lease, Watch, acquire
from runner.store.log import Log
from runner.store.publish import Stored, forget, publish_files, sweep
from runner.store.records import genesis, is_done, regimes
from runner.store.retry import Busy
from runner.store.root import add_job, open_root
from runner.store.space import ORPHAN_SECONDS
from runner.trouble import Cause, Trouble
from runner.workplace import Workplace
from wake2vec.files import digest_file

HICCUP_SECONDS = 5.0  # a store that is busy for less is no news


@dataclass(kw_only=True)
class Keeper:
    job: str
    log: Log
    watch: Watch = field(default_factory=Watch)
    lease: Lease | None = None
    beat_at: float = 0.0  # monotonic
    used_at: float = 0.0  # monotonic: when the job last had need of the lease
    swept_at: float = -1e9  # monotonic
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
class Care:
    """The sync loop's own memory."""

    work: Workplace
    clock: Callable[[], float] = time.monotonic
    root: Log | None = None
    keepers: dict[str, Keeper] = field(default_factory=dict)
    retry_at: dict[str, float] = field(default_factory=dict)  # monotonic
    troubles: dict[str, Trouble] = field(default_factory=dict)  # what keeps a job from the store now
    taken: set[str] = field(default_factory=set)  # held once: a person's word to take over does not last for ever
    mirrored: Mark | None = None  # how far the newest copy of the queue in the store goes
    mirrored_at: float = -1e9  # monotonic
    trouble_at: float = -1e9  # monotonic: when the store was last in the way of a job
    busy: threading.Lock = field(default_factory=threading.Lock)  # held for the length of a round

    @property
    def journal(self) -> Path:
        return self.work.settings.home / "transfers"

    def trouble_of(self, job: str) -> Trouble | None:
        """What keeps the job from the store: its own trouble, or a store that is being asked again and again."""
        return self.troubles.get(job) or self.store_trouble()

    def store_trouble(self) -> Trouble | None:
        busy: Busy | None = getattr(self.work.store, "busy", None)
        if busy is None or busy.again_at - busy.since_at < HICCUP_SECONDS:
            return None
        return Trouble(job=None, cause=Cause.STORE, said=busy.said, since_at=busy.since_at, again_at=busy.again_at)

    @property
    def troubles_now(self) -> tuple[Trouble, ...]:
        """All that is in the way at this moment, of the store and of this machine."""
        obstacles = list(self.work.obstacles.items())
        here = [Trouble(job=job, cause=Cause.MACHINE, said=f"{job}: {said}", since_at=0.0) for job, said in obstacles]
        return (*list(self.troubles.values()), *here, *filter(None, [self.store_trouble()]))

    def root_log(self) -> Log:
        if self.root is None:
            self.root = open_root(self.work.store, holder=self.work.holder)
        return self.root


def keeper_of(care: Care, job: Job, now: float) -> Keeper:
    """The job's log, begun in the store with all that another machine needs to run the job."""
    found = care.keepers.get(job.name)
    if found is None:
        root = care.root_log()
        body = {
            "job": job.spec.model_dump(mode="json"),
            "fingerprint": job.fingerprint,
            "inputs": [item.model_dump() for item in job.inputs],
            "stored_inputs": _publish_inputs(care, job),
            "created_at": job.created_at,
        }
        log = add_job(root, job.name, fingerprint=job.fingerprint, genesis=body)
        for item in job.inputs:
            forget(care.journal, _input_folder(item.sha256))
        found = care.keepers[job.name] = Keeper(job=job.name, log=log)
        checkpoints.set_log_state(care.work.queue, job.name, now, created_at=log.records[0].written_at)
    return found


def _input_folder(sha256: str) -> str:
    return f"inputs/{sha256[:16]}"


def _publish_inputs(care: Care, job: Job) -> dict[str, Any]:
    """Store each text and word list once, whatever number of jobs share it; a model stays where it is."""
    known = {
        sha256: Stored(**table)
        for keeper in care.keepers.values()
        for sha256, table in genesis(keeper.log.records).get("stored_inputs", {}).items()
    }
    found = {}
    for item in job.inputs:
        path = care.work.settings.inputs / item.sha256
        if item.role == "model" or not path.is_file():
            continue
        stored = publish_files(
            care.work.store, {item.sha256: path}, {item.sha256: digest_file(path)},
            folder=_input_folder(item.sha256), known=known, journal=care.journal,
        )  # fmt: skip
        found[item.sha256] = asdict(stored[item.sha256])
    return found


def hold(care: Care, keeper: Keeper, now: float, monotonic: float) -> bool:
    """Have the lease, and show that this runner lives. False when the log says that the job is done.

    Raises LeaseHeld while another runner is at work, Fenced when it took over.
    """
    work = care.work
    keeper.used_at = monotonic
    if keeper.lease is None:
        keeper.log.refresh()
        if is_done(keeper.log.records):
            checkpoints.set_log_state(work.queue, keeper.job, now, done_at=now, problem="", remedy="", fenced=False)
            return False
        keeper.lease = acquire(
            keeper.log, keeper.watch, at=monotonic,
            take_over=work.take_over and keeper.job not in care.taken, ttl_seconds=work.settings.numbers.lease_seconds,
        )  # fmt: skip
        keeper.beat_at = -1e9
        care.taken.add(keeper.job)
        checkpoints.set_log_state(
            work.queue, keeper.job, now, epoch=keeper.lease.epoch, problem="", remedy="", fenced=False
        )
    if monotonic - keeper.swept_at > ORPHAN_SECONDS:  # what killed uploads left is old enough an hour later
        sweep(work.store, keeper.log, journal=care.journal, now=now)
        keeper.swept_at = monotonic
    beat(care, keeper, monotonic)
    return True


def beat(care: Care, keeper: Keeper, monotonic: float) -> None:
    interval = min(BEAT_SECONDS, care.work.settings.numbers.lease_seconds / 4)
    if keeper.lease is None or monotonic - keeper.beat_at < interval:
        return
    with suppress(StoreUnavailable):  # a beat that is missed is harmless; the log decides
        keeper.lease.beat({"session": care.work.session.machine, "platform": care.work.session.platform})
    keeper.beat_at = monotonic


def give_back(care: Care, keeper: Keeper, now: float) -> None:
    """Release the lease, so that the next runner need not wait."""
    if keeper.lease is None:
        return
    with suppress(Fenced):  # somebody has it already
        keeper.lease.release()
    keeper.lease = None
    checkpoints.set_log_state(care.work.queue, keeper.job, now, epoch=None)


def lose(care: Care, job: str, now: float, reason: str) -> None:
    """Another runner has the job: forget the lease, and have the trainer stopped by the tick loop."""
    keeper = care.keepers.get(job)
    if keeper is not None:
        keeper.lease = None
    care.work.ready.pop(job, None)
    remedy = "it goes on there; stop that runner first if this machine is to take the job"
    checkpoints.set_log_state(care.work.queue, job, now, epoch=None, fenced=True, problem=reason, remedy=remedy)


def stored_table(files: dict[str, Stored]) -> dict[str, Any]:
    return {name: asdict(file) for name, file in files.items()}


def from_table(table: dict[str, Any]) -> dict[str, Stored]:
    return {name: Stored(**file) for name, file in table.items()}
