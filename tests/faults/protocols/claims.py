"""The store goes away, in every way that a person or a disk can make it: is one word of the runner false then?

A claim is a durable step, a job that is over, or the exit code 0. It is false when a home that knows nothing but the
store cannot go on from that step, or use that result.
"""

from __future__ import annotations

import itertools
import random
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import runner.sync.upload
from runner.daemon.ending import left_to_you
from runner.daemon.main import last_code
from runner.errors import RunnerError, StoreBusy, StoreLost
from runner.queue import checkpoints, jobs
from runner.store.base import Store
from runner.store.drive.store import open_drive
from runner.store.drive.transfer import Throttle
from runner.store.hub.store import open_hub
from runner.store.log import Log
from runner.store.places.directory import DirectoryStore
from runner.store.places.fsspec import open_fs
from runner.store.publish import publish_checkpoint
from runner.store.retry import Backoff, RetryingStore
from runner.sync.fetch import fetch_result
from runner.sync.mend import repair
from runner.sync.opening import open_job_log
from runner.sync.prepare import prepare
from runner.sync.trust import unconfirmed
from tests.drive_server.server import DriveServer
from tests.faults.protocols.store import scratch
from tests.hub import Hub, running_hub
from tests.hub_repository import Entry, Repository
from tests.simulated import Clock, Home, Trainers
from tests.unit.runner.conftest import job_spec
from wake2vec.contract.manifest import saved_steps

STORES = ("dir", "fs", "drive", "hub")
MOMENTS = ("training", "between sessions", "new home")
PARTS = ("root", "job", "file")
REPOSITORY = "me/wake-store"
STEPS = 60


@dataclass
class Place:
    """One store, and what can be done to it behind the runner's back."""

    kind: str
    folder: Path
    draw: random.Random
    server: DriveServer | None = None
    hub: Hub | None = None
    kept: dict[str, Entry] = field(default_factory=dict)  # of a hub, at an earlier moment
    undo: Callable[[], None] | None = None  # brings back what went away, where it can come back

    def open(self, home: str) -> Store:
        if self.server is not None:
            store: Store = open_drive("wake2vec", self.folder / home, self.server.environ(), Throttle())
        elif self.hub is not None:
            store = open_hub(REPOSITORY, {"HF_ENDPOINT": self.hub.url, "HF_TOKEN": "hf_me"})
        else:
            root = self.folder / "store"
            store = DirectoryStore(root) if self.kind == "dir" else open_fs(f"file://{root}")
        return RetryingStore(store, backoff=Backoff(give_up_seconds=1.0), sleep=lambda seconds: None)

    def keep(self) -> None:
        """A copy that an older state of the store is made of later."""
        if self.hub is not None:
            self.kept = self.hub.stores[REPOSITORY].files
        elif self.server is None:
            shutil.copytree(self.folder / "store", self.folder / "older", dirs_exist_ok=True)

    def strike(self, part: str) -> str:
        if self.hub is not None:
            ways = self._ways_on_hub(self.hub, part)
        else:
            ways = self._ways_on_drive(part) if self.server is not None else self._ways_on_disk(part)
        name = self.draw.choice(sorted(ways))
        self.undo = None
        ways[name]()
        return name

    # -- a folder ---------------------------------------------------------------------------------------------------

    def _ways_on_disk(self, part: str) -> dict[str, Callable[[], None]]:
        root = self.folder / "store"
        if part == "root":
            return {
                "deleted": lambda: shutil.rmtree(root),
                "unmounted": lambda: self._move(root, empty=True),
                "moved": lambda: self._move(root, empty=False),
                "root record deleted": (root / "log/000000.json").unlink,
                "root log deleted": lambda: shutil.rmtree(root / "log"),
                "older copy": lambda: self._swap(self.folder / "older"),
                "another store": lambda: self._swap(self._another()),
            }
        if part == "job":
            return {
                "deleted": lambda: shutil.rmtree(root / "jobs/a"),
                "moved": lambda: self._move(root / "jobs/a", empty=False),
                "log deleted": lambda: shutil.rmtree(root / "jobs/a/log"),
                "checkpoints deleted": lambda: shutil.rmtree(root / "jobs/a/checkpoints", ignore_errors=True),
                "older copy": lambda: self._swap(self.folder / "older/jobs/a", root / "jobs/a"),
            }
        files = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
        return {"deleted": self.draw.choice(files).unlink, "emptied": lambda: self.draw.choice(files).write_bytes(b"")}

    def _move(self, folder: Path, *, empty: bool) -> None:
        aside = self.folder / "aside"
        folder.rename(aside)
        if empty:
            folder.mkdir()

        def back() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)

        self.undo = back

    def _swap(self, source: Path, target: Path | None = None) -> None:
        target = target or self.folder / "store"
        shutil.rmtree(target)
        if source.exists():
            shutil.copytree(source, target)

    def _another(self) -> Path:
        other = Home.new(self.folder / "stranger", self.folder / "another", Clock())
        other.add(job_spec("other", steps=STEPS))
        other.rounds(3)
        other.queue.close()
        return self.folder / "another"

    # -- Drive ------------------------------------------------------------------------------------------------------

    def _ways_on_drive(self, part: str) -> dict[str, Callable[[], None]]:
        assert self.server is not None
        drive = self.server.drive
        titled = {str(file.metadata["title"]): file.id for file in drive.files.values()}
        ids = sorted(file.id for file in drive.files.values() if "mimeType" not in file.metadata or file.md5)
        chosen = {"root": titled.get("wake2vec"), "job": titled.get("a")}.get(part) or self.draw.choice(ids)

        def bin_() -> None:
            drive.throw_away(chosen)
            self.undo = lambda: None if chosen not in drive.files else drive.throw_away(chosen, back=True)

        return {"deleted": lambda: drive.delete(chosen), "in the bin": bin_}

    # -- a hub ------------------------------------------------------------------------------------------------------

    def _ways_on_hub(self, hub: Hub, part: str) -> dict[str, Callable[[], None]]:
        store = hub.stores[REPOSITORY]

        def becomes(files: dict[str, Entry]) -> None:
            before = store.files
            self._upload(store, files)
            # what was written since stays, unless a new home has begun another store meanwhile
            self.undo = lambda: self._upload(store, before if part == "root" else before | store.files)

        def deleted() -> None:
            hub.stores.pop(REPOSITORY)
            self.undo = lambda: hub.stores.update({REPOSITORY: store})

        def without(taken: Callable[[str], bool]) -> None:
            becomes({path: entry for path, entry in store.files.items() if not taken(path)})

        if part == "root":
            return {
                "deleted": deleted,
                "emptied": lambda: without(lambda path: path != ".gitattributes"),
                "root record deleted": lambda: without(lambda path: path == "log/000000.json"),
                "older copy": lambda: becomes(self.kept),
            }
        if part == "job":
            older = {path: entry for path, entry in self.kept.items() if path.startswith("jobs/a/")}
            others = {path: entry for path, entry in store.files.items() if not path.startswith("jobs/a/")}
            return {
                "deleted": lambda: becomes(others),
                "log deleted": lambda: without(lambda path: path.startswith("jobs/a/log/")),
                "older copy": lambda: becomes(others | older),
            }
        chosen = self.draw.choice(sorted(store.files.keys() - {".gitattributes"}))
        return {"deleted": lambda: without(lambda path: path == chosen)}

    @staticmethod
    def _upload(store: Repository, files: dict[str, Entry]) -> None:
        """As somebody with the token would, in a browser or with git."""
        store.commits.append((secrets.token_hex(20), dict(files)))


@contextmanager
def a_place(kind: str, draw: random.Random) -> Iterator[Place]:
    with scratch() as folder:
        if kind == "hub":
            with running_hub() as hub:
                hub.tokens["hf_me"] = {"read", "write"}
                yield Place(kind, folder, draw, hub=hub)
            return
        if kind != "drive":
            yield Place(kind, folder, draw)
            return
        with DriveServer(folder / "google") as server:
            yield Place(kind, folder, draw, server=server)


@contextmanager
def shipped_here() -> Iterator[None]:
    """Uploads over a network run in the process of the test."""
    before = runner.sync.upload.ship_in_a_process

    def ship(shipment: Any, place: Path, *, progress: Any) -> Any:
        store = STORES_OF[shipment.home]
        log = Log.open(store, shipment.first_id, holder=shipment.holder, hint=shipment.hint)
        return publish_checkpoint(
            store, log, Path(shipment.folder), epoch=shipment.epoch, kind=shipment.kind, attempt=shipment.attempt,
            journal=Path(shipment.home) / "transfers", progress=progress,
        )  # fmt: skip

    runner.sync.upload.ship_in_a_process = ship  # type: ignore[assignment]
    try:
        yield
    finally:
        runner.sync.upload.ship_in_a_process = before
        STORES_OF.clear()


STORES_OF: dict[str, Store] = {}


def a_home(place: Place, name: str, clock: Clock) -> tuple[Home, bool]:
    """A daemon on a new or known home, and whether it began: it ends at once where nothing can go on."""
    store = STORES_OF[str(place.folder / name)] = place.open(name)
    folder = place.folder / name
    folder.mkdir(exist_ok=True)
    home = Home(folder=folder, store=store, clock=clock, trainers=Trainers(folder / "locks"))
    try:
        home.start_daemon()
    except (StoreLost, StoreBusy):
        return home, False
    return home, True


def go_on(home: Home, draw: random.Random, rounds: int) -> None:
    for _ in range(rounds):
        if home.trainers.living and draw.random() < 0.6:
            home.train(draw.randint(1, 6), save=draw.random() < 0.7)
        home.rounds(1, seconds=draw.choice((1.0, 5.0, 30.0)))


def claims(home: Home) -> dict[str, int | None]:
    """What the last lines of `start` say is safe: a step, or None for a job that is over; "" when the code is 0."""
    doubts = unconfirmed(home.context, home.now)
    found: dict[str, int | None] = {}
    for job in (every := jobs.list_jobs(home.queue)):
        if job.name in doubts:
            continue
        if str(job.state) == "succeeded":
            found[job.name] = None
        elif (step := checkpoints.durable_step(home.queue, job.name)) is not None:
            found[job.name] = step
    if every and all(job.is_final for job in every):
        is_well = left_to_you(home.queue) == 0 and last_code(0, home.daemon, doubts) == 0
        found |= {"": None} if is_well else {}
    return found


def said_in_between(home: Home) -> dict[str, int | None]:
    """What `status` shows: everything that the queue counts, but of jobs that are known to be lost."""
    if home.daemon.lost:
        return {}
    every = {job.name: checkpoints.durable_step(home.queue, job.name) for job in jobs.list_jobs(home.queue)}
    return {name: step for name, step in every.items() if step is not None}


def not_confirmed(place: Place, found: dict[str, int | None], number: int, clock: Clock) -> list[str]:
    """The claims that a home which knows nothing but the store cannot confirm."""
    if not found:
        return []
    fresh, is_open = a_home(place, f"judge-{number}", clock)
    try:
        if not is_open:
            return [f"{found}: the store cannot be opened"]
        return [fault for name, step in found.items() if (fault := judge(fresh, name, step))]
    finally:
        fresh.queue.close()


def judge(fresh: Home, name: str, step: int | None) -> str:
    """Reads only, so that whoever is judged can go on."""
    known = {job.name: job for job in jobs.list_jobs(fresh.queue)}
    if not name:
        return "" if known and all(job.is_final for job in known.values()) else "exit 0, and the work is not there"
    if name not in known:
        return f"{name} at {step}: the store has no such job"
    job, now = known[name], fresh.now
    try:
        if step is None:
            fetch_result(fresh.context, job, "final", now)
        else:
            prepare(open_job_log(fresh.context, job, now), job, now)
    except RunnerError as error:
        return f"{name} at {step}: {error}"
    if step is None:
        return "" if (fresh.run(name).final / "weights.json").is_file() else f"{name} is over: it has no result"
    reached = max(saved_steps(fresh.run(name)), default=-1)
    return "" if reached >= step else f"{name} at {step}: goes on from {reached}"


@dataclass
class Found:
    false_claims: list[str] = field(default_factory=list)
    unstartable: list[str] = field(default_factory=list)
    claims: int = 0
    noticed: int = 0
    ways: Counter[str] = field(default_factory=Counter)


def store_goes_away(runs: int, *, seed: int = 0, stride: int = 1) -> dict[str, Any]:
    """Every kind of store, moment and part in turn, in a way that chance chooses; then back, or repaired.

    A few runs meet all kinds, moments and parts too, if they stride through the cases.
    """
    started, found = time.monotonic(), Found()
    cases = [(kind, moment, part) for moment, part, kind in itertools.product(MOMENTS, PARTS, STORES)]
    with shipped_here():
        for number in range(0, runs * stride, stride):
            draw = random.Random(seed * 1_000_003 + number)
            kind, moment, part = cases[number % len(cases)]
            with a_place(kind, draw) as place:
                called = f"run {number} ({kind}, {moment}, {part}"
                try:
                    _one(place, moment, part, draw, found, called)
                except (RunnerError, AssertionError) as error:
                    found.unstartable.append(f"{called}): {type(error).__name__} {error}")
    return {
        "runs": runs,
        "claims": found.claims,
        "noticed": found.noticed,
        "false_claims": len(found.false_claims),
        "unstartable": len(found.unstartable),
        "details": [*found.false_claims, *found.unstartable][:20],
        "ways": dict(sorted(found.ways.items())),
        "seconds": round(time.monotonic() - started, 1),
        "seed": seed,
    }


def _one(place: Place, moment: str, part: str, draw: random.Random, found: Found, called: str) -> None:
    clock = Clock()
    home, _ = a_home(place, "home", clock)
    home.add(job_spec("a", steps=STEPS, checkpoint={"every_steps": 20}))
    home.until(lambda: home.trainers.living)
    go_on(home, draw, draw.randint(1, 8))
    place.keep()
    go_on(home, draw, draw.randint(0, 12))
    if moment != "training":
        home.leave()
        home.queue.close()
    way = place.strike(part)
    called = f"{called}, {way})"
    found.ways[f"{place.kind} {part} {way}"] += 1
    is_open = True
    if moment != "training":
        home, is_open = a_home(place, "home" if moment == "between sessions" else "second", clock)
        home.daemon.take_over = True
    if is_open:
        go_on(home, draw, draw.randint(0, 10))
        clock.monotonic += 700.0
        go_on(home, draw, 1)
        _weigh(place, said_in_between(home), found, f"{called} in between", clock)
        go_on(home, draw, draw.randint(0, 20))
        home.leave()
        _weigh(place, claims(home), found, f"{called} at the end", clock)
    found.noticed += bool(home.daemon.lost) or not is_open
    home.queue.close()
    _mended(place, home.folder.name if is_open else "home", draw, found, called, clock)


def _weigh(place: Place, said: dict[str, int | None], found: Found, called: str, clock: Clock) -> None:
    found.claims += len(said)
    aside = Clock(monotonic=clock.monotonic, offset=clock.offset)
    faults = not_confirmed(place, said, found.claims, aside)
    found.false_claims += [f"{called}: {fault}" for fault in faults]


def _mended(place: Place, name: str, draw: random.Random, found: Found, called: str, clock: Clock) -> None:
    """It comes back by itself, or the person says yes: then the job ends, and a fresh home has its result."""
    if place.undo is not None and draw.random() < 0.5:
        place.undo()
        called += ", then back"
    else:
        home, _ = a_home(place, "home", clock)  # the one that knows most
        called += ", then repaired"
        try:
            repair(home.context, home.now, lambda text: None, agreed=True)
        except StoreLost:
            assert place.undo is not None, called
            place.undo()
        home.queue.close()
        name = "home"
    home, is_open = a_home(place, name, clock)
    home.daemon.take_over = True
    for _ in range(60 if is_open else 0):
        go_on(home, draw, 5)
        if home.state() == "succeeded" and checkpoints.log_state(home.queue, "a").done_at is not None:
            break
    if not is_open or home.state() != "succeeded":
        found.unstartable.append(f"{called}: {home.state() if is_open else 'closed'} {home.problem()}")
    _weigh(place, claims(home), found, called, clock)
    home.queue.close()
