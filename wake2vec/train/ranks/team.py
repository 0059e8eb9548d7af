"""The ranks of one attempt, one a card. Rank 0 leads: it alone decides and writes, the others do what it says."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch.multiprocessing.spawn import start_processes

from wake2vec.contract.errors import NoGpu, OutOfMemory, RankLost
from wake2vec.contract.files import counted
from wake2vec.contract.order import Order
from wake2vec.contract.plan import LayerPath, Plan
from wake2vec.contract.rundir import STOP_SIGNALS, RunDir
from wake2vec.model.device import card_name, is_out_of_memory
from wake2vec.model.layers.stage import Passage
from wake2vec.phases.base import Prepared
from wake2vec.train.optimizers import Optimizer
from wake2vec.train.ranks import group

T = TypeVar("T")
PATIENCE_SECONDS = 60.0  # for a rank, beyond what rank 0 took for the same
AS_SLOW = 5.0  # times what rank 0 took
LOADING_SECONDS = 900.0
NOTICE_SECONDS = 5.0  # rank 0 waits for a card, perhaps, that will never answer


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Load and dress the model, or the layers of it that are dealt to a rank; answered with the name of the card."""

    layers: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Join:
    rendezvous: Path


@dataclass(frozen=True, kw_only=True)
class TakeOver:
    """Rank 0's weights and optimizer state."""


@dataclass(frozen=True, kw_only=True)
class Bring:
    """What a rank trains that no other does, and the state of its optimizer, for rank 0 to save."""


@dataclass(frozen=True, kw_only=True)
class Prove:
    """That a layer path computes what the library does in a rank's own layers; answered with why not."""

    path: LayerPath


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Hidden states through a rank's layers without gradients; answered with the largest output of each."""

    passage: Passage


@dataclass(frozen=True, kw_only=True)
class Place:
    plan: Plan


@dataclass(frozen=True, kw_only=True)
class Accumulate:
    """The gradient of the samples that are a rank's own; answered with a Share, None when a stop was asked for."""

    step: int
    plan: Plan
    scale: float


@dataclass(frozen=True, kw_only=True)
class Reduce:
    step: int
    unreached: frozenset[str]  # parameters that got a gradient on no rank


@dataclass(frozen=True, kw_only=True)
class Update:
    lr: float
    factor: float


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Held-out windows of a text, some for each rank; answered with their sums, None where there are none."""

    text: str
    parts: tuple[list[int], ...]


@dataclass(frozen=True, kw_only=True)
class Digest:
    """Answered with sums over what trains, which are the same on all ranks."""


Command = Prepare | Join | TakeOver | Bring | Prove | Pass | Place | Accumulate | Reduce | Update | Measure | Digest


@dataclass(frozen=True, kw_only=True)
class Failed:
    """In place of an answer. `memory`: nothing has changed yet; `update`: some weights may have."""

    kind: str  # card (another try would not help), error, memory, update
    text: str


class Team(Protocol):
    """All ranks, as rank 0 sees them."""

    size: int  # ranks that share out the samples
    regime: dict[str, Any]  # what a checkpoint says of it, nothing for one card

    def do(self, command: Command, own: Callable[[], T]) -> list[T]:
        """Have every rank carry out the command, rank 0 by `own`; the answers in order of rank.

        Raises RankLost when one is gone or silent; where one ran out of memory, MemoryError or OutOfMemory as rank 0
        would, after every rank has answered.
        """

    def give(self, prepared: Prepared, optimizer: Optimizer) -> None:
        """Have every rank go on from the state of rank 0."""

    def gather(self, prepared: Prepared, optimizer: Optimizer) -> None:
        """Make the state of rank 0 whole, where others train what it does not."""


class Alone:
    """The team of one card."""

    size = 1

    def __init__(self) -> None:
        self.regime: dict[str, Any] = {}

    def do(self, command: Command, own: Callable[[], T]) -> list[T]:
        return [own()]

    def give(self, prepared: Prepared, optimizer: Optimizer) -> None: ...

    def gather(self, prepared: Prepared, optimizer: Optimizer) -> None: ...


def in_words(regime: Mapping[str, Any]) -> str:
    """The cards of a checkpoint."""
    dealt = ", each with some of the layers," if regime.get("spread") == "layers" else ""
    return counted(regime.get("cards", 1), "card") + dealt


class Ranks(AbstractContextManager["Ranks"]):
    """The other ranks as processes of this one, which they do not outlive; they load the model from the start on."""

    def __init__(
        self,
        run: RunDir,
        order: Order,
        size: int,
        *,
        beat: Callable[[], None],
        lost: Callable[[RankLost], None],
        layers: tuple[int, ...] = (),
    ) -> None:
        """`lost` is called from a thread when a rank ends and nobody here notices."""
        from wake2vec.train.ranks.member import serve

        self.size = self.count = size
        self.regime: dict[str, Any] = {"cards": size}
        self._beat, self._lost, self._layers, self._rendezvous = beat, lost, layers, run.rendezvous
        self._rendezvous.unlink(missing_ok=True)  # of an attempt that was killed
        pairs = [multiprocessing.Pipe() for _ in range(1, size)]
        self._lines = [mine for mine, _ in pairs]
        theirs = [other for _, other in pairs]
        # not asked to stop before they listen: a signal to the group reaches them while Python still starts
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        started = start_processes(  # type: ignore[no-untyped-call]
            serve, args=(run, order, size, theirs), nprocs=size - 1, join=False, daemon=True, start_method="spawn"
        )
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._processes = started.processes
        for line in theirs:
            line.close()  # so that the end of a process is the end of its line
        self._is_over, self._asking = threading.Event(), threading.Lock()
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()
        self._tell(Prepare(layers=layers))

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def join(self, device: torch.device) -> None:
        """Wait until all have loaded. Raises NoGpu where the cards differ or cannot talk."""
        names = [card_name(device), *self._hear(LOADING_SECONDS)]
        if len(set(names)) > 1:
            told = ", ".join(f"{name} (rank {rank})" for rank, name in enumerate(names))
            raise NoGpu(
                f"the cards of this group differ: {told}; choose equal ones with CUDA_VISIBLE_DEVICES, or set "
                "train.cards = 1"
            )
        place, layers = self._rendezvous, bool(self._layers)
        self.do(Join(rendezvous=place), lambda: group.join(place, 0, self.count, device, layers=layers))

    def give(self, prepared: Prepared, optimizer: Optimizer) -> None:
        tensors = group.state_of(prepared, optimizer)
        self.do(TakeOver(), lambda: group.take_over(tensors, prepared.device))

    def gather(self, prepared: Prepared, optimizer: Optimizer) -> None: ...

    def do(self, command: Command, own: Callable[[], T]) -> list[T]:
        self._tell(command)
        started = time.monotonic()
        try:
            mine = own()
        except Exception as error:
            if is_out_of_memory(error):  # the others are heard out: what follows is another command
                self._hear(PATIENCE_SECONDS + AS_SLOW * (time.monotonic() - started))
            elif isinstance(error, RankLost):
                self._require_alive()
            raise
        return [mine, *self._hear(PATIENCE_SECONDS + AS_SLOW * (time.monotonic() - started))]

    def __exit__(self, *_: object) -> None:
        """They have nothing to lose: all that they know, rank 0 knows too."""
        self._is_over.set()
        for process in self._processes:
            process.kill()
            process.join()
        group.leave()
        self._rendezvous.unlink(missing_ok=True)

    def _tell(self, command: Command) -> None:
        for rank, line in enumerate(self._lines, start=1):
            try:
                line.send(command)
            except OSError as error:
                raise self._gone(rank) from error

    def _hear(self, patience: float) -> list[Any]:
        answers: dict[int, Any] = {}
        until = time.monotonic() + patience
        while waiting := {line: rank for rank, line in enumerate(self._lines, start=1) if rank not in answers}:
            ready: list[Any] = connection.wait(list(waiting), timeout=1.0)
            for line in ready:
                rank = waiting[line]
                try:
                    answers[rank] = line.recv()
                except (EOFError, OSError) as error:
                    raise self._gone(rank) from error
            self._beat()
            if time.monotonic() > until and len(answers) < len(self._lines):
                silent = ", ".join(str(rank) for rank in waiting.values() if rank not in answers)
                raise RankLost(f"rank {silent} of {self.count} has not answered for {patience:.0f} s")
        raise_failures([answers[rank] for rank in sorted(answers)])
        return [answers[rank] for rank in sorted(answers)]

    def _require_alive(self) -> None:
        """Raises RankLost that names one that has ended."""
        ended = connection.wait([process.sentinel for process in self._processes], timeout=NOTICE_SECONDS)
        for rank, process in enumerate(self._processes, start=1):
            if process.sentinel in ended:
                raise self._gone(rank)

    def _gone(self, rank: int) -> RankLost:
        process = self._processes[rank - 1]
        with self._asking:  # of two threads that ask at once how it ended, one would be told that it lives
            process.join(NOTICE_SECONDS)
            return RankLost(f"rank {rank} of {self.count} is gone: {_ended(process.exitcode)}")

    def _watch(self) -> None:
        connection.wait([process.sentinel for process in self._processes])
        if not self._is_over.wait(NOTICE_SECONDS):
            try:
                self._require_alive()
            except RankLost as error:
                self._lost(error)


def _ended(code: int | None) -> str:
    return "it ended by itself" if code is None or code >= 0 else f"it was ended by signal {-code}"


def raise_failures(answers: Sequence[Any]) -> None:
    failures = [(rank, one) for rank, one in enumerate(answers, start=1) if isinstance(one, Failed)]
    for rank, failure in sorted(failures, key=lambda one: one[1].kind):  # errors first: they end the attempt
        said = f"rank {rank}: {failure.text}"
        raise {"card": NoGpu, "memory": MemoryError, "update": OutOfMemory}.get(failure.kind, RankLost)(said)
