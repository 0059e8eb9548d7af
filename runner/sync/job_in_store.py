"""What the sync loop remembers: of the store as a whole, and of each job its log and the lease on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.context import DaemonContext, Now, read_clocks
from runner.errors import Damaged, Fenced, LeaseHeld, Loss, NotStored, StoreLost, StoreUnavailable
from runner.queue import checkpoints, jobs
from runner.queue.changing import follow, follow_person, unknown_changes
from runner.queue.database import Queue
from runner.queue.history import Mark
from runner.queue.ledger import add_event, in_words
from runner.queue.view import Sight
from runner.settings import TRANSFERS
from runner.store.base import Store
from runner.store.known import ROOT, KnownLogs
from runner.store.lease import BEAT_SECONDS, Lease, Watch, acquire
from runner.store.log import Log
from runner.store.presence import check_record
from runner.store.publish import sweep
from runner.store.records import AnyNote, Commit, Note, Record, StateNote, is_done, notes, regimes
from runner.store.retry import Busy
from runner.store.root import open_root
from runner.store.space import ORPHAN_SECONDS
from runner.trouble import Cause, Trouble
from wake2vec.contract.rundir import RunDir

HICCUP_SECONDS = 5.0  # a store that is busy for less is no news


@dataclass(kw_only=True)
class JobInStore:
    context: SyncContext = field(repr=False)
    job: str
    log: Log
    watch: Watch = field(default_factory=Watch)
    lease: Lease | None = None
    beat_at: float = 0.0  # monotonic
    used_at: float = 0.0  # monotonic: when the job last had need of the lease
    swept_at: float = -1e9  # monotonic
    walked_at: float = -1e9  # monotonic: when the log was last read from its beginning
    confirmed_at: float = -1e9  # monotonic: when the store last showed all of it
    page_step: int | None = None  # of the newest evaluation on the page in the store
    rested_at: float | None = None  # the `changed_at` of the state that the log was last told
    heard: int = field(init=False)  # the newest record whose news this home has taken

    def __post_init__(self) -> None:
        """What a home has seen of a log it has heard; a log that is new to it says all at once."""
        copy = self.context.known.read(self.log.name)
        is_same = copy is not None and copy.records[0].nonce == self.records[0].nonce
        self.heard = copy.tail.seq if copy is not None and is_same else self.records[-1].seq

    @property
    def epoch(self) -> int:
        assert self.lease is not None, f"{self.job}: written to without a lease"
        return self.lease.epoch

    @property
    def run(self) -> RunDir:
        return self.context.daemon.run(self.job)

    @property
    def store(self) -> Store:
        return self.context.store

    @property
    def queue(self) -> Queue:
        return self.context.queue

    @property
    def records(self) -> list[Record]:
        return self.log.records

    @property
    def is_done(self) -> bool:
        return is_done(self.records)

    def note(self, note: Note) -> None:
        self.log.append("REGIME", note.to_payload(), epoch=self.epoch)

    def noted(self, kind: type[AnyNote]) -> AnyNote | None:
        """The newest of that kind."""
        found = notes(self.records, kind)
        return found[-1] if found else None

    def tell(self, now: Now, kind: str, text: str) -> None:
        """An event of the job."""
        add_event(self.queue, now.wall, kind, f"{self.job}: {text}", job=self.job)

    def set_state(self, now: Now, **changes: Any) -> None:
        checkpoints.set_log_state(self.queue, self.job, now.wall, **changes)

    def mark_durable(self, commit: Commit, now: Now) -> None:
        sha256, size = commit.manifest.sha256, commit.size
        checkpoints.mark_durable(self.queue, self.job, commit.step, manifest_sha256=sha256, size=size, now=now.wall)

    def hold(self, now: Now) -> bool:
        """Have the lease, and show that this runner lives. False when the log says that the job is done, and nobody
        here wants more of it.

        Raises LeaseHeld while another runner is at work, Fenced when it took over.
        """
        daemon, taken = self.context.daemon, self.context.taken
        self.used_at = now.monotonic
        if self.lease is None:
            if self.is_done and not self._open_again():
                return False
            take_over = daemon.take_over and self.job not in taken
            ttl = daemon.settings.numbers.lease_seconds * self.store.properties.pace
            self.lease = acquire(self.log, self.watch, at=now.monotonic, take_over=take_over, ttl_seconds=ttl)
            self.beat_at = -1e9
            if self._unheard():  # came while the lease was being taken
                self.give_back(now)
                raise LeaseHeld(f"{self.job}: its state has just been changed", holder=daemon.holder, seconds_left=0.0)
            taken.add(self.job)
            self.set_state(now, epoch=self.lease.epoch, **checkpoints.SOUND)
        if now.monotonic - self.swept_at > ORPHAN_SECONDS:  # what killed uploads left is old enough an hour later
            self.sweep(now)
            self.swept_at = now.monotonic
        self.beat(now)
        return True

    def hear(self, now: Now) -> bool:
        """Do here what other homes have said of the job since; True when it stands otherwise now.

        A person's word counts in the order of the log: what one here said after it was last heard comes later.
        """
        self.log.refresh()
        for change in unknown_changes(self.queue, self.job, [record.payload for record in regimes(self.records)]):
            follow(self.queue, self.job, change, now.wall)
            self.tell(now, "regime", f"another runner has changed it: {in_words(change)}")
        new, before = self._unheard(), self._told()
        self.heard = self.records[-1].seq
        if not new or self.queue.is_shared:  # there the row has it
            return False
        told = StateNote.from_payload(new[-1].payload)
        if not follow_person(self.queue, self.job, before.stands, told.stands, now.wall, reason=told.reason):
            return False
        self.tell(now, "regime", f"{new[-1].holder} has it {told.stands}")
        self.context.known.keep(self.log)
        return True

    def _states(self) -> list[Record]:
        return [one for one in regimes(self.records) if one.payload.get("what") == StateNote.WHAT]

    def _unheard(self) -> list[Record]:
        """What other homes said of the job's state, if nobody here has said anything after it."""
        new = [one for one in self._states() if one.seq > self.heard]
        return new if new and new[-1].holder != self.context.daemon.holder else []

    def _told(self) -> StateNote:
        """What was heard last, or said here."""
        holder = self.context.daemon.holder
        heard = [one for one in self._states() if one.seq <= self.heard or one.holder == holder]
        return StateNote.from_payload(heard[-1].payload) if heard else StateNote()

    def _open_again(self) -> bool:
        """Give a job that is done more steps, where a person here wants them; False when nobody does.

        One record does it, behind DONE, where exactly one writer can win; the lease is taken after it, as always.
        """
        end = self.records[-1].done.step
        for one in self.context.sight.view.regimes:
            if one.job == self.job and one.change.get("what") == "extend" and int(one.change["steps"]) > end:
                body = one.change | {"from_step": one.from_step}
                self.log.append_shared("REGIME", body, unless=lambda found: None if is_done(found) else found[-1])
                return True
        return False

    def beat(self, now: Now) -> None:
        session = self.context.daemon.session
        interval = min(BEAT_SECONDS, self.context.daemon.settings.numbers.lease_seconds / 4)
        if self.lease is None or now.monotonic - self.beat_at < interval * self.store.properties.pace:
            return
        with suppress(StoreUnavailable, NotStored):  # a beat that is missed is harmless; the log decides
            self.lease.beat({"session": session.machine, "platform": session.platform})
        self.beat_at = now.monotonic

    def give_back(self, now: Now) -> None:
        """Release the lease, so that the next runner need not wait."""
        if self.lease is None:
            return
        with suppress(Fenced):  # somebody has it already
            self.lease.release()
        self.lease = None
        self.set_state(now, epoch=None)

    def leave(self) -> None:
        """The same where another home of a shared queue keeps the job, and with it the queue's row, by now."""
        with suppress(Fenced, StoreUnavailable, NotStored):
            if self.lease is not None:
                self.lease.release()
        self.lease = None

    def sweep(self, now: Now) -> None:
        sweep(self.store, self.log, journal=self.context.journal, now=now.wall)


@dataclass(kw_only=True)
class SyncContext:
    """The sync loop's own memory."""

    daemon: DaemonContext
    clock: Callable[[], Now] = read_clocks
    root: Log | None = None
    opened: dict[str, JobInStore] = field(default_factory=dict)
    retry_at: dict[str, float] = field(default_factory=dict)  # monotonic
    troubles: dict[str, Trouble] = field(default_factory=dict)  # what keeps a job from the store now
    taken: set[str] = field(default_factory=set)  # held once: a person's word to take over does not last for ever
    mirrored: Mark | None = None  # how far the newest copy of the queue in the store goes
    mirrored_at: float = -1e9  # monotonic
    looked_at: float = -1e9  # monotonic: at the root
    swept_inputs_at: float = -1e9  # monotonic
    turns: dict[str, float] = field(default_factory=dict)  # monotonic: the round of a kind's last turn
    known: KnownLogs = field(init=False)
    trouble_at: float = -1e9  # monotonic: when the store was last in the way of a job
    busy: threading.Lock = field(default_factory=threading.Lock)  # held for the length of a round
    sight: Sight = field(init=False)

    def __post_init__(self) -> None:
        self.sight = Sight(self.queue)
        self.known = KnownLogs(self.home, self.store.properties.place)

    @property
    def queue(self) -> Queue:
        return self.daemon.queue

    @property
    def store(self) -> Store:
        return self.daemon.store

    def run(self, job: str) -> RunDir:
        return self.daemon.run(job)

    @property
    def home(self) -> Path:
        return self.daemon.settings.home

    def monotonic(self) -> float:
        return self.clock().monotonic

    @property
    def journal(self) -> Path:
        return self.home / TRANSFERS

    def has_turn(self, kind: str, now: Now) -> bool:
        """Once a round: what a thousand jobs are due for at the same time is done for one after the other."""
        before, self.turns[kind] = self.turns.get(kind), now.monotonic
        return before != now.monotonic

    def trouble_of(self, job: str) -> Trouble | None:
        """What keeps the job from the store: its own trouble, or a store that is being asked again and again."""
        return self.troubles.get(job) or self.store_trouble()

    def store_trouble(self) -> Trouble | None:
        busy: Busy | None = getattr(self.store, "busy", None)
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
            copy, every = self.known.read(ROOT), jobs.list_jobs(self.queue)
            has_brought = any(checkpoints.log_state(self.queue, job.name).created_at for job in every)
            try:
                root = open_root(self.store, holder=self.daemon.holder, may_begin=copy is None and not has_brought)
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
