"""A rank beyond the first: a model of its own, which carries out what rank 0 says and writes nothing."""

from __future__ import annotations

import ctypes
import signal
import traceback
from collections.abc import Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any

import torch

from wake2vec.contract.errors import NoGpu, OutOfMemory
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.order import Order
from wake2vec.contract.rundir import STOP_SIGNALS, RunDir
from wake2vec.model.device import brief, card_name, free_memory, is_out_of_memory, quiet_libraries, require_card
from wake2vec.model.placement import apply_plan
from wake2vec.phases.identity import pinned
from wake2vec.phases.inputs import read_inputs
from wake2vec.phases.table import PHASES
from wake2vec.train.evaluate import sums_of, texts_of
from wake2vec.train.optimizers import optimizer_of
from wake2vec.train.plans.choice import guard
from wake2vec.train.ranks import group
from wake2vec.train.ranks.team import (
    Accumulate,
    Command,
    Digest,
    Failed,
    Join,
    Measure,
    Place,
    Prepare,
    Reduce,
    TakeOver,
    Update,
)
from wake2vec.train.step import Stepper, digest, state_of
from wake2vec.train.stopping import Stop

PR_SET_PDEATHSIG = 1


def serve(index: int, run: RunDir, order: Order, size: int, lines: Sequence[Connection]) -> None:
    """Answer commands until the line ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no rank holds a card longer than rank 0 holds its lock
    for other in (line for place, line in enumerate(lines) if place != index):
        other.close()
    member, line = Member(run, order, index + 1, size), lines[index]
    while True:
        try:
            command = line.recv()
        except EOFError:
            return
        line.send(answer(member, command))


def answer(member: Member, command: Command) -> Any:
    try:
        failpoint(f"rank.{type(command).__name__.lower()}")
        return member.obey(command)
    except Exception as error:
        failed = _failed(error)
        if failed.kind == "error":
            traceback.print_exc()
    member.free()  # past the except block: its traceback held the tensors
    return failed


def _failed(error: Exception) -> Failed:
    if isinstance(error, OutOfMemory):
        return Failed(kind="update", text=str(error))
    if is_out_of_memory(error):
        return Failed(kind="memory", text=brief(error))
    if isinstance(error, NoGpu):
        return Failed(kind="card", text=str(error))
    return Failed(kind="error", text=f"{type(error).__name__}: {error}")


class Member:
    """What one rank holds."""

    def __init__(self, run: RunDir, order: Order, rank: int, size: int) -> None:
        self._run, self._order, self._rank, self._size = run, order, rank, size
        self._stop = Stop()
        self._stop.listen()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def obey(self, command: Command) -> Any:
        match command:
            case Prepare():
                return self.prepare()
            case Join():
                return group.join(command.rendezvous, self._rank, self._size, self.prepared.device)
            case TakeOver():
                return group.take_over(state_of(self.prepared, self._optimizer), self.prepared.device)
            case Place():
                self.free()
                apply_plan(self.prepared.model, self.prepared.rows, command.plan, self.prepared.device)
                return None
            case Accumulate():
                return self._stepper.accumulate(command.step, command.plan, command.scale, self._stop)
            case Reduce():
                return self._stepper.reduce(command.step, command.unreached)
            case Update():
                return self._stepper.update(command.lr, command.factor)
            case Measure():
                return self.measure(command)
            case Digest():
                return digest(self.prepared)

    def prepare(self) -> str:
        """What rank 0 has put in place is read. Returns the name of the card."""
        quiet_libraries()
        require_card(self._order, self._rank)
        if torch.cuda.is_available():
            torch.cuda.set_device(self._rank)
        order = pinned(self._run, self._order, at_once=True)
        self.material = read_inputs(self._run, order, lambda text: None, identify=lambda *_: Future())
        self.prepared = PHASES[self.material.job.phase].prepare(self.material)
        guard(self.material, self.prepared, lambda text: None)
        self._optimizer = optimizer_of(self.material.job.train, self.prepared.trainable, self.prepared.rows)
        self._stepper = Stepper.of(self.material, self.prepared, self._optimizer, rank=self._rank, size=self._size)
        return card_name(self.prepared.device)

    def measure(self, command: Measure) -> Any:
        if self._rank >= len(command.parts):
            return None
        text = texts_of(self.prepared, self.material)[command.text]
        self.prepared.model.eval()
        return sums_of(self.prepared, text, command.parts[self._rank])

    def free(self) -> None:
        free_memory(self.prepared.trainable.values() if hasattr(self, "prepared") else ())
