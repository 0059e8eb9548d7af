"""A rank beyond the first: a model of its own, which carries out what rank 0 says and writes nothing."""

from __future__ import annotations

import ctypes
import signal
import traceback
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import torch

from wake2vec.contract.errors import NoGpu, OutOfMemory
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.order import Order
from wake2vec.contract.rundir import STOP_SIGNALS, RunDir
from wake2vec.hopes.reader import adapters_off
from wake2vec.model.device import brief, card_name, free_memory, is_out_of_memory, quiet_libraries, require_card
from wake2vec.model.fp16_range import watch_outputs
from wake2vec.model.layers.stage import Passage, Stage
from wake2vec.model.placement import apply_plan
from wake2vec.phases.identity import pinned
from wake2vec.phases.inputs import read_inputs
from wake2vec.phases.layers import prepare_layers
from wake2vec.phases.table import PHASES
from wake2vec.train.evaluate import sums_of, texts_of
from wake2vec.train.optimizers import optimizer_of
from wake2vec.train.plans.choice import guard
from wake2vec.train.plans.proven import Proven
from wake2vec.train.ranks import group
from wake2vec.train.ranks.agreement import digest
from wake2vec.train.ranks.pipeline import part_of
from wake2vec.train.ranks.team import (
    Accumulate,
    Bring,
    Command,
    Digest,
    Failed,
    Join,
    Measure,
    Pass,
    Place,
    Prepare,
    Prove,
    Reduce,
    TakeOver,
    Update,
)
from wake2vec.train.step import Stepper
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
        self._post, self._cache, self._stop = group.Post(), None, Stop()
        self._stop.listen()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def obey(self, command: Command) -> Any:
        match command:
            case Prepare():
                return self.prepare(command.layers)
            case Join():
                layers = self._stage is not None
                return group.join(command.rendezvous, self._rank, self._size, self.prepared.device, layers=layers)
            case TakeOver():
                tensors = group.state_of(self.prepared, self._optimizer)
                return group.carry(tensors, of=0) if self._stage else group.take_over(tensors, self.prepared.device)
            case Bring():
                return group.carry(group.state_of(self.prepared, self._optimizer), to=0)
            case Prove():
                return self._proven.refusal(command.path)
            case Pass():
                return self.pass_on(command.passage)
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

    def prepare(self, layers: tuple[int, ...]) -> str:
        """What rank 0 has put in place is read. Returns the name of the card."""
        quiet_libraries()
        require_card(self._order, self._rank)
        if torch.cuda.is_available():
            torch.cuda.set_device(self._rank)
        order = pinned(self._run, self._order, at_once=True)
        self._stage = Stage(rank=self._rank, dealt=layers) if layers else None
        inputs = read_inputs(self._run, order, lambda text: None, identify=lambda *_: Future())
        self.material = replace(inputs, stage=self._stage)
        if self._stage is None:
            self.prepared = PHASES[self.material.job.phase].prepare(self.material)
            guard(self.material, self.prepared, lambda text: None)
        else:
            self.prepared = prepare_layers(self.material)
        self._optimizer = optimizer_of(self.material.job.train, self.prepared)
        self._proven = Proven(self.material, self.prepared, print)
        self._stepper = Stepper.of(
            self.material, self.prepared, self._optimizer, **part_of(self.prepared, self._rank, self._size)
        )
        return card_name(self.prepared.device)

    def measure(self, command: Measure) -> Any:
        if self._rank >= len(command.parts):
            return None
        text = texts_of(self.prepared, self.material)[command.text]
        self.prepared.model.eval()
        return sums_of(self.prepared, text, command.parts[self._rank])

    @torch.no_grad()
    def pass_on(self, passage: Passage) -> list[float]:
        """Whatever happens the next rank hears of it, so that none waits for what never comes."""
        model, width, found = self.prepared.model, self.prepared.rows.head.rows.shape[1], list[torch.Tensor]()
        x, out = self._post.receive(width, of=self._rank - 1, tag=0), None
        hooks = watch_outputs(model, found) if passage.past is None else []
        try:
            if x is not None and self._stage is not None:
                self._stage.arrived = x.to(self.prepared.device)  # [b, s, d]
                ids = torch.zeros(x.shape[:2], dtype=torch.int64, device=self.prepared.device)
                model.eval()
                with adapters_off(model, passage.bare):
                    cache = self._cache if passage.past else None
                    found_there = model.get_decoder()(
                        input_ids=ids, past_key_values=cache, use_cache=passage.past is not None
                    )
                out, self._cache = found_there.last_hidden_state, found_there.past_key_values
        finally:
            for hook in hooks:
                hook.remove()
            self._post.send(out, to=(self._rank + 1) % self._size, tag=0)
            self._post.wait()
        return [float(one) for one in found]

    def free(self) -> None:
        free_memory(self.prepared.trainable.values() if hasattr(self, "prepared") else ())
