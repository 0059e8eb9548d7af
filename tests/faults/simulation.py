"""Runners that are frozen, killed and lied to at any call, replayed from a seed: the model check of the log."""

from __future__ import annotations

import hashlib
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from runner.errors import Fenced, LeaseHeld, StoreBusy
from runner.store.base import Properties
from runner.store.lease import Lease, Watch, acquire, read_beat
from runner.store.log import Log
from runner.store.publish import commit
from runner.store.records import Commit, StoredFile, commits, is_done, lease_epoch, newest_commit

LAST_STEP = 6
QUIET_AFTER = 400  # calls; then faults end, so that the job must end too
CALLS_AT_MOST = 20_000


class Killed(BaseException):
    """kill -9 at this very call."""


@dataclass
class World:
    """One schedule: the seed decides who moves, how far clocks run, and what goes wrong."""

    seed: int
    runners: int = 3
    exclusive_create: bool = True
    records: dict[str, bytes] = field(default_factory=dict)
    heads: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    time: float = 0.0
    calls: int = 0
    met: Counter[str] = field(default_factory=Counter)
    late: list[Callable[[], object]] = field(default_factory=list)  # requests still on their way to the store
    acknowledged: list[tuple[str, int]] = field(default_factory=list)  # nonce and step of commits that were confirmed

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.ids = 0

    def run(self) -> list[str]:
        """Play the schedule to its end; returns what it broke."""
        self.first_id = Log.begin(
            Client(self, None), name="jobs/q", kind="GENESIS", payload={}, holder="enqueue"
        ).first_id
        actors = [Actor(self, number) for number in range(self.runners)]
        while any(actor.is_alive for actor in actors) and self.calls < CALLS_AT_MOST:
            actor = self.random.choice([one for one in actors if one.is_alive])
            if self.time < actor.frozen_until and self.calls < QUIET_AFTER:
                self.time += self.random.random() * 10
                continue
            self._arrive()
            actor.step()
        for actor in actors:
            actor.end()
        return broken(self)

    def _arrive(self) -> None:
        if self.late and self.random.random() < 0.3:
            self.late.pop(self.random.randrange(len(self.late)))()


@dataclass
class Client:
    """A store as one runner sees it; only what the log and the lease need."""

    world: World
    actor: Actor | None

    @property
    def properties(self) -> Properties:
        return Properties(place="the simulation")

    def new_ids(self, names: Sequence[str]) -> list[str]:
        self.world.ids += len(names)
        return [f"id-{self.world.ids - index}" for index in range(len(names))]

    def create(self, id: str, body: bytes, *, name: str) -> bool:
        return bool(self._call(lambda: self._create(id, body)))

    def _create(self, id: str, body: bytes) -> bool:
        if id in self.world.records and self.world.exclusive_create:
            return False
        self.world.records[id] = body
        return True

    def read(self, id: str) -> bytes | None:
        return self._call(lambda: self.world.records.get(id))

    def silence(self, id: str) -> float | None:
        return None

    def read_head(self, id: str) -> tuple[bytes, str] | None:
        return self._call(lambda: self.world.heads.get(id))

    def swap_head(self, id: str, body: bytes, tag: str | None, *, name: str) -> bool:
        return bool(self._call(lambda: self._swap(id, body, tag)))

    def _swap(self, id: str, body: bytes, tag: str | None) -> bool:
        current = self.world.heads.get(id)
        if (current and current[1]) != tag:
            return False
        self.world.ids += 1
        self.world.heads[id] = (body, str(self.world.ids))
        return True

    def _call(self, effect: Callable[[], Any]) -> Any:
        """Every call may be the last, never arrive, arrive late, or succeed without the runner learning of it."""
        world = self.world
        world.calls += 1
        world.time += world.random.random() * 5
        if self.actor is None:
            return effect()
        self.actor.pause()
        fault = world.random.random() if world.calls < QUIET_AFTER else 1.0
        if fault < 0.02:
            self._meet("killed before", Killed())
        if fault < 0.06:
            self._meet("lost request", StoreBusy("simulated"))
        if fault < 0.09:
            world.late.append(effect)
            self._meet("late request", StoreBusy("simulated"))
        answer = effect()
        if fault < 0.11:
            self._meet("killed after", Killed())
        if fault < 0.16:
            self._meet("lost answer", StoreBusy("simulated"))
        if fault < 0.19:
            world.met["frozen"] += 1
            self.actor.frozen_until = world.time + world.random.random() * 300
        return answer

    def _meet(self, name: str, error: BaseException) -> None:
        self.world.met[name] += 1
        raise error


class Actor:
    """A runner in a thread of its own that moves one store call at a time, when the world lets it."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.homes = 0
        self.frozen_until = 0.0
        self.is_alive = True
        self.clock_offset = world.random.uniform(-90, 90)
        self.clock_rate = world.random.uniform(0.98, 1.02)
        self._go = threading.Semaphore(0)
        self._done = threading.Semaphore(0)
        self._is_ending = False
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    # -- the world's side

    def step(self) -> None:
        self._go.release()
        self._done.acquire()

    def end(self) -> None:
        self._is_ending = True
        if self.is_alive:
            self.step()
        self._thread.join()

    # -- the runner's side

    def pause(self) -> None:
        self._done.release()
        self._go.acquire()
        if self._is_ending:
            raise Killed

    def monotonic(self) -> float:
        return self.clock_offset + self.clock_rate * self.world.time

    def _live(self) -> None:
        self._go.acquire()
        while not self._is_ending:
            try:
                if self._work():
                    break
            except Killed:
                self.homes += self.world.random.random() < 0.5  # half the time the disk is gone too
        self.is_alive = False
        self._done.release()

    def _again(self, call: Callable[[], Any]) -> Any:
        while True:
            try:
                return call()
            except StoreBusy:
                self.pause()

    def _work(self) -> bool:
        """One life of a process; True when the job is done."""
        client, holder = Client(self.world, self), f"runner-{self.number}-{self.homes}"
        log = self._again(lambda: Log.open(client, self.world.first_id, holder=holder, now=self.monotonic))
        beat, _ = self._again(lambda: read_beat(log))
        if beat is not None and beat.carrying_id:
            log = self._again(lambda: Log.open(client, self.world.first_id, holder=holder, hint=beat.carrying_id))
        watch = Watch()
        while not is_done(log.records):
            try:
                lease = self._again(lambda: self._acquire(log, watch))
                self._train(log, lease)
            except LeaseHeld:
                self.world.time += self.world.random.random() * 30
                self.pause()
            except Fenced:
                self._again(log.refresh)
        return True

    def _acquire(self, log: Log, watch: Watch) -> Lease:
        is_impatient = self.world.random.random() < 0.02  # a person who is wrong about the other one
        return acquire(log, watch, at=self.monotonic(), take_over=is_impatient)

    def _train(self, log: Log, lease: Lease) -> None:
        newest = newest_commit(log.records)
        step, parent = (newest.commit.step, newest.commit.manifest.sha256) if newest else (0, "")
        while step < LAST_STEP:
            self.world.time += self.world.random.random() * 40
            step += 1
            sha256 = hashlib.sha256(f"{parent}{step}".encode()).hexdigest()  # training again gives the same bits
            manifest = StoredFile(id=f"after {parent}", size=1, sha256=sha256, md5="")
            body = Commit(step=step, kind="milestone", manifest=manifest, parts={})
            record = self._again(lambda body=body: commit(log, body, epoch=lease.epoch))
            self.world.acknowledged.append((record.nonce, step))
            parent = sha256
            self._again(lease.beat)
            if self.world.random.random() < 0.05:
                self._again(lease.release)
                return
        self._again(lambda: log.append("DONE", {}, epoch=lease.epoch))


def broken(world: World) -> list[str]:
    """Every invariant of the log that this world's store does not keep."""
    log = Log.open(Client(world, None), world.first_id, holder="judge")
    records, found = log.records, commits(log.records)
    faults = []
    if records[0].kind != "GENESIS" or [record.seq for record in records] != list(range(len(records))):
        faults.append("the chain has a gap")
    for index, record in enumerate(records):
        if record.kind == "COMMIT" and record.epoch != lease_epoch(records[:index]):
            faults.append(f"commit {record.seq} was made under a lost lease")
        if record.kind == "DONE" and record is not records[-1]:
            faults.append("something follows DONE")
    if [record.commit.step for record in found] != list(range(1, len(found) + 1)):
        faults.append(f"double or missing commits: {[record.commit.step for record in found]}")
    parents = ["", *[record.commit.manifest.sha256 for record in found]]
    if any(record.commit.manifest.id != f"after {parent}" for record, parent in zip(found, parents, strict=False)):
        faults.append("a commit does not continue the one before it")
    nonces = {record.nonce for record in found}
    if any(nonce not in nonces for nonce, _ in world.acknowledged):
        faults.append("an acknowledged commit is lost")
    if not is_done(records):
        faults.append("the job did not end")
    return faults
