"""What the two loops of a daemon share: the queue, the store, the trainers, and what each tells the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from runner.errors import StoreLost
from runner.machine.launcher import Launcher
from runner.machine.session import mean_session_minutes
from runner.machine.vram import CardUse
from runner.queue import attempts, sharing
from runner.queue.database import Queue
from runner.queue.rows import Job, Session
from runner.queue.view import Sight
from runner.settings import Settings
from runner.states import Foreign
from runner.store.base import Store
from wake2vec.contract.order import Order, Source
from wake2vec.contract.rundir import RunDir


class Now(NamedTuple):
    """`wall` is only written down and compared with back-offs; patience runs on `monotonic`."""

    wall: float  # seconds since 1970
    monotonic: float


def read_clocks() -> Now:
    return Now(time.time(), time.monotonic())


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A job whose run directory holds all that a trainer needs; `source` is what P2 starts from."""

    source: Source | None = None
    last_attempt: int = 0  # the highest number that any home has given to an attempt at this job


class Handover:
    """Where the two loops meet: tick asks for jobs to be made ready, sync gives them, tick takes and starts them.

    Each loop sees the queue as its round began, so only what is asked for at this moment can be given: a job that runs
    by now and is given once more would later start from what it was then, and not be brought to the store until it did.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[str, None] = {}
        self._given: dict[str, Ready] = {}

    def ask(self, names: Iterable[str]) -> None:
        """These could start now, first one first; nothing else is asked for any more."""
        with self._lock:
            self._asked = dict.fromkeys(names)
            self._given = {name: ready for name, ready in self._given.items() if name in self._asked}

    def asked(self) -> dict[str, int]:
        """Those that are not ready yet, each with its place in the row."""
        with self._lock:
            return {name: place for place, name in enumerate(self._asked) if name not in self._given}

    def asks(self, name: str) -> bool:
        with self._lock:
            return name in self._asked and name not in self._given

    def holds(self, name: str) -> bool:
        with self._lock:
            return name in self._given

    def give(self, name: str, ready: Ready) -> None:
        with self._lock:
            if name in self._asked:
                self._given[name] = ready

    def take(self, name: str) -> Ready | None:
        """Once: after that it has to be made ready again."""
        with self._lock:
            ready = self._given.pop(name, None)
            if ready is not None:
                del self._asked[name]
            return ready


@dataclass(frozen=True, kw_only=True)
class Sign:
    """The last change in a trainer's heartbeat and when it was seen, on the monotonic clock."""

    beat: int
    state: str
    at: float


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a trainer's ledger has been read, and of which file."""

    inode: int
    offset: int


@dataclass(kw_only=True)
class DaemonContext:
    """One daemon at work. Tick alone writes jobs, segments and attempts; sync alone writes what is durable."""

    settings: Settings
    queue: Queue
    store: Store
    launcher: Launcher
    session: Session
    holder: str
    cards: list[CardUse] = field(default_factory=list)
    read_cards: Callable[[], list[CardUse]] = list
    stop_by: float | None = None
    take_over: bool = False
    allow: frozenset[Foreign] = frozenset()
    is_stopping: bool = False  # nothing new starts, every trainer is asked to end
    handover: Handover = field(default_factory=Handover)
    sight: Sight = field(init=False)  # tick's own, like all below
    obstacles: dict[str, str] = field(default_factory=dict)  # job → what on this machine keeps it from starting
    lost: dict[str, StoreLost] = field(default_factory=dict)  # sync: what the store has lost by job; "" is all of it
    homes: sharing.Watch = field(init=False)
    living: list[str] = field(default_factory=list)  # homes of a shared queue, as tick saw them
    passed: dict[str, float] = field(default_factory=dict)  # jobs left to other homes, since when (monotonic)
    unread: dict[str, str] = field(default_factory=dict)  # sync: jobs that the store lists and cannot show, with why
    signs: dict[int, Sign] = field(default_factory=dict)
    warned: dict[int, set[str]] = field(default_factory=dict)  # attempt → kinds of threats that were told
    positions: dict[str, Position] = field(default_factory=dict)
    watched_at: float | None = None  # monotonic: when tick last looked at the trainers
    asked_at: dict[int, float] = field(default_factory=dict)  # pid → monotonic time of the SIGTERM

    def __post_init__(self) -> None:
        self.sight = Sight(self.queue)
        self.homes = sharing.Watch(silent_seconds=self.settings.numbers.lease_seconds)

    def run(self, job: str) -> RunDir:
        return RunDir(root=self.settings.runs / job)

    @property
    def gpus(self) -> list[int]:
        """A place for a trainer on each card; a machine without a card has some on the CPU, one by default."""
        return [card.index for card in self.cards] or list(
            range(self.launcher.places or self.settings.numbers.cpu_cards)
        )

    def gpu_name(self, gpus: Sequence[int]) -> str:
        """What a trainer works on, for people and for what is remembered of it."""
        name = next((card.name for card in self.cards if card.index in gpus), self.launcher.card)
        return f"{len(gpus)} x {name}" if len(gpus) > 1 else name


def order_of(daemon: DaemonContext, job: Job, ready: Ready, *, attempt: int, gpus: Sequence[int]) -> Order:
    return Order(
        job=job.spec,
        fingerprint=job.fingerprint,
        attempt=attempt,
        inputs=job.inputs,
        inputs_folder=str(daemon.settings.inputs),
        source=ready.source,
        gpu_lock=str(daemon.launcher.lock(gpus[0])),
        more_locks=[str(daemon.launcher.lock(gpu)) for gpu in gpus[1:]],
        on_cards=bool(daemon.cards) or daemon.launcher.on_cards,
        stop_by=daemon.stop_by,
        mean_session_minutes=mean_session_minutes(attempts.list_sessions(daemon.queue)),
        plan=attempts.plan_limit(daemon.queue, daemon.gpu_name(gpus), job.name),
    )
