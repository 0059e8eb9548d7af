"""One optimizer step: the gradient of the whole step whatever the micro-batch, then one update."""

from __future__ import annotations

import math
from collections import ChainMap
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wake2vec.contract.errors import Diverged, OutOfMemory
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.ledger import StepRow, to_json
from wake2vec.contract.plan import Plan
from wake2vec.contract.tables import DataTable, TrainTable
from wake2vec.data.blocks import Blocks
from wake2vec.data.permutation import blocks_of_step
from wake2vec.data.seen_words import SeenWords
from wake2vec.data.slices import Slice, pieces
from wake2vec.model.device import brief, is_out_of_memory
from wake2vec.model.dropout import drop_only_keyed
from wake2vec.model.forms import FORMS
from wake2vec.model.loss import IGNORE, blocked_cross_entropy
from wake2vec.model.new_rows import InstalledRows
from wake2vec.model.split_vocabulary import gradient_of
from wake2vec.phases.base import Prepared
from wake2vec.phases.inputs import JobInputs
from wake2vec.train.movement import lora_norm, lora_norms, moving_rows
from wake2vec.train.optimizers import Optimizer, clip_factor, norm_of, squares_of
from wake2vec.train.ranks.group import add_up, add_up_in_order
from wake2vec.train.ranks.pipeline import Done, Pipeline
from wake2vec.train.ranks.team import Accumulate, Alone, Reduce, Team, Update
from wake2vec.train.ranks.tree import Node, add, deal, total
from wake2vec.train.state import LossScale
from wake2vec.train.stopping import Stop


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step measured: nats per target token, the number of tokens, the gradient norm before clipping."""

    loss: float
    tokens: int
    grad_norm: float
    entries_changed: float  # share of all that trains
    rows_moving: float | None = None  # share of the new rows, where they train
    lora_b_norm: float | None = None  # before the step, where adapters train
    structure: dict[str, Any] | None = None  # what each auxiliary term came to

    def as_row(self, **more: Any) -> dict[str, Any]:
        """The ledger's, with the fields of a StepRow that are not measured here."""
        return to_json(StepRow(**{**vars(self), "entries_changed": round(self.entries_changed, 6)}, **more))


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a rank found of its samples: nats in parts, the tokens of the whole step, what got no gradient from them."""

    nats: list[float]
    tokens: int
    unreached: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of what a rank trains, once its gradient is whole, by name: squares of the gradient in parts, norms of LoRA B."""

    squares: dict[str, list[float]]
    lora: dict[str, float]


class Stepper:
    """Runs steps of one job under the present plan: rank 0 the whole of them, the others their share."""

    def __init__(
        self,
        prepared: Prepared,
        blocks: Blocks,
        optimizer: Optimizer,
        *,
        train: TrainTable,
        data: DataTable,
        only_seen: bool,
        team: Team | None = None,
        rank: int = 0,
        size: int = 1,
        pipeline: Pipeline | None = None,
    ) -> None:
        """Samples are dealt to `size` ranks; with a `pipeline` each goes through all of them."""
        self._prepared, self._blocks, self._optimizer = prepared, blocks, optimizer
        self._train, self._data, self._team = train, data, team or Alone()
        self._pipeline, self._leads = pipeline, prepared.stage is None or prepared.stage.is_first
        self._samples, self._size = deal(train.batch, rank, size), size
        self._nodes: list[Node] = []  # of this step, where the order of its sum is fixed
        self._structure: dict[str, Any] | None = None
        self._scale = 1.0  # of the loss, in this step
        head = prepared.rows.head
        self._met = (
            SeenWords(
                blocks,
                batch=train.batch,
                seed=data.seed,
                first_new_id=head.first_new_id,
                n_new=len(head.rows),
                row_of=None if head.forms is None else head.forms.word_of.cpu().numpy(),
            )
            if only_seen
            else None
        )

    @classmethod
    def of(cls, material: JobInputs, prepared: Prepared, optimizer: Optimizer, **ranks: Any) -> Stepper:
        """As the job says."""
        job, has_rows = material.job, len(prepared.rows.head.rows) > 0
        seen = job.only_seen and has_rows
        return cls(prepared, material.blocks, optimizer, train=job.train, data=job.data, only_seen=seen, **ranks)

    def run(self, step: int, *, lr: float, plan: Plan, scale: LossScale, stop: Stop) -> StepResult | None:
        """Take the step, or return None with nothing changed when a stop was asked for in the middle of it.

        A step whose fp16 gradients overflow is taken again at half the scale. Raises Diverged when the loss itself is
        not finite, and whatever the device raises when it has no memory left: nothing has changed then either.
        """
        while True:
            found = self._gather(step, plan, scale.value, stop)
            if found is None:
                return None
            nats, tokens, sizes = found
            failpoint("step.clip")
            norm = norm_of(sizes.squares) / scale.value
            if math.isfinite(norm) and math.isfinite(nats):
                break
            if not math.isfinite(nats) or scale.value <= 1.0:
                raise Diverged(f"step {step}: the loss is {nats / tokens} and the gradient norm {norm}")
            scale.halve()
        moving = moving_rows(self._prepared.rows)
        factor = clip_factor(norm, self._train.clip_norm) / scale.value
        counts = self._team.do(Update(lr=lr, factor=factor), lambda: self.update(lr, factor))
        scale.count_clean()
        return StepResult(
            loss=nats / tokens,
            tokens=tokens,
            grad_norm=norm,
            entries_changed=sum(changed for changed, _ in counts) / max(1, sum(entries for _, entries in counts)),
            rows_moving=moving,
            lora_b_norm=lora_norm([sizes.lora[name] for name in self._prepared.tensors if name in sizes.lora]),
            structure=self._structure,
        )

    def _gather(self, step: int, plan: Plan, scale: float, stop: Stop) -> tuple[float, int, Sizes] | None:
        """Nats and tokens of the step, its whole gradient left in place; None when a stop was asked for."""
        command = Accumulate(step=step, plan=plan, scale=scale)
        found = self._team.do(command, lambda: self.accumulate(step, plan, scale, stop))
        shares = [share for share in found if share is not None]
        if len(shares) < len(found):
            stop.ask("a rank was asked to stop")
            return None
        together = frozenset.intersection if self._team.size > 1 else frozenset.union
        unreached = together(*(share.unreached for share in shares))
        every = self._team.do(Reduce(step=step, unreached=unreached), lambda: self.reduce(step, unreached))
        # exact, so that it does not matter how the samples were dealt
        nats = math.fsum(nats for share in shares for nats in share.nats)
        # ranks train the same, which measures the same on each, or each something else
        squares, lora = ChainMap(*(one.squares for one in every)), ChainMap(*(one.lora for one in every))
        return nats, shares[0].tokens, Sizes(squares=dict(squares), lora=dict(lora))

    def can_have_moved(self, steps: int) -> bool:
        """Whether so many steps have given anything a reason to move: rows rest until their words are met."""
        return self._met is None or bool(self._met.up_to(steps - 1).any())

    def update(self, lr: float, factor: float) -> tuple[int, int]:
        """Of what a rank trains: how many entries changed, and how many there are. Raises OutOfMemory."""
        try:
            failpoint("step.update")
            self._optimizer.step(lr, gradient_factor=factor)
            failpoint("step.updated")
            return self._optimizer.changed()
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                # some weights may have moved already: only the last saved state is whole
                raise OutOfMemory(f"the optimizer's update ran out of memory: {brief(error)}") from error
            raise

    def accumulate(self, step: int, plan: Plan, scale: float, stop: Stop) -> Share | None:
        """The gradient of this rank's samples, left in place or in the nodes; None when a stop was asked for."""
        self._optimizer.zero_grad()
        self._nodes.clear()
        self._scale = scale
        drop_only_keyed(self._prepared.model)
        indices = blocks_of_step(step, self._train.batch, len(self._blocks), self._data.seed)
        inputs, targets = (torch.from_numpy(part).to(self._prepared.device) for part in self._blocks.batch(indices))
        tokens = int((targets != IGNORE).sum())
        in_order = self._train.reduction == "fixed"
        size = 1 if in_order else plan.micro_batch
        slices: list[Slice] = []
        ends: dict[int, int] = {}  # after which of them a sample is complete, where each is taken apart
        for start in self._samples[::size]:
            part = slice(start, min(start + size, self._samples.stop))
            ids = step * self._train.batch + torch.arange(part.start, part.stop, device=self._prepared.device)
            slices += pieces(inputs[part], targets[part], ids, plan.block_splits)
            ends |= {len(slices) - 1: start} if in_order else {}
        found = [torch.zeros((), dtype=torch.float64, device=self._prepared.device)]
        unreached = set(self._prepared.trainable)

        def done(place: int, nats: Tensor | None) -> None:
            found[-1] += 0.0 if nats is None else nats
            if place in ends:
                found.append(torch.zeros_like(found[-1]))
                unreached.difference_update(self._reached())
                add(self._nodes, Node(first=ends[place], size=1, tensors=self._take_gradients()))

        run = self._run if self._pipeline is None else self._run_pipeline
        if not run(step, slices, scale / tokens, stop, done) and self._leads:
            return None
        unreached -= self._reached()
        return Share(nats=torch.stack(found).tolist(), tokens=tokens, unreached=frozenset(unreached))

    def _run(self, step: int, slices: list[Slice], scale: float, stop: Stop, done: Done) -> bool:
        for place, one in enumerate(slices):
            if stop.is_asked:
                return False
            self._enter(step, one)
            failpoint("step.forward")
            start, nats = self._loss(self._prepared.hidden(one.inputs), one, scale)
            failpoint("step.backward")
            start.backward()  # type: ignore[no-untyped-call]
            done(place, nats)
        return True

    def _run_pipeline(self, step: int, slices: list[Slice], scale: float, stop: Stop, done: Done) -> bool:
        """The same where layers are dealt out. Only rank 0 stops, since the others do not know what it has begun."""
        assert self._pipeline is not None, "called for a stage"
        return self._pipeline.run(
            [one.inputs for one in slices],
            enter=lambda place: self._enter(step, slices[place]),
            loss=lambda hidden, place: self._loss(hidden, slices[place], scale),
            done=done,
            asked_to_stop=lambda: self._leads and stop.is_asked,
            overlapped=self._train.reduction == "fast",
        )

    def _enter(self, step: int, one: Slice) -> None:
        self._prepared.context.set(step=step, sample_ids=one.samples, position_offset=one.offsets)

    def _loss(self, hidden: Tensor, one: Slice, scale: float) -> tuple[Tensor, Tensor]:
        """What to go back from, and the nats. [b, s, d]"""
        loss = blocked_cross_entropy(hidden.flatten(0, 1), self._prepared.rows.head, one.targets.flatten(), scale=scale)
        return loss.scaled, loss.token_nll.double().sum()

    def reduce(self, step: int, unreached: frozenset[str]) -> Sizes:
        """Once a step: the sum over all ranks, kept from rows whose words training has not met."""
        named = sorted(self._prepared.trainable.items())
        if self._nodes:
            summed = add_up_in_order(self._nodes, self._train.batch) if self._size > 1 else total(self._nodes)
            for (name, parameter), tensor in zip(named, summed, strict=True):
                parameter.grad = None if name in unreached else tensor
            self._nodes.clear()
        elif self._size > 1:
            add_up([_gradient_of(parameter) for name, parameter in named if name not in unreached])
        met = None if self._met is None else torch.from_numpy(self._met.up_to(step))
        if (structure := self._prepared.structure) is not None:
            self._structure = structure.add_gradients(step, self._scale)
            met = None if met is None else met | structure.named(len(met))
        if met is not None:
            keep_met_rows(self._prepared.rows, met)
        return Sizes(squares=squares_of(self._prepared.trainable), lora=lora_norms(self._prepared.trainable))

    def _reached(self) -> set[str]:
        return {name for name, parameter in self._prepared.trainable.items() if parameter.grad is not None}

    def _take_gradients(self) -> list[Tensor]:
        """Those of one sample, out of the parameters, in the order of the names."""
        named = sorted(self._prepared.trainable.items())
        taken = [_gradient_of(parameter) for _, parameter in named]
        for _, parameter in named:
            parameter.grad = None
        return taken


@torch.no_grad()
def keep_met_rows(rows: InstalledRows, met: Tensor) -> None:
    """Zero the gradient of new rows whose words training has not met yet. met: [n_new] bool

    The softmax gives every row a small gradient that pushes it down. An optimizer that divides by the size of a row's
    own gradients turns that into a full step, so words that are rare in the text would be trained away. Once a word has
    been met every step counts: to move its row only where it occurs would leave out what pushes it down, and it would
    end up too probable everywhere (both measured in docs/quality.md).
    """
    for name, parameter in rows.trainable().items():
        if parameter.grad is not None and not name.endswith(FORMS):
            parameter.grad.masked_fill_(~met.to(parameter.device).unsqueeze(1), 0.0)


def _gradient_of(parameter: nn.Parameter) -> Tensor:
    """Zeros where none of this rank's samples came by: an expert that was not chosen, for one."""
    parameter.grad = gradient_of(parameter).contiguous()  # messages are flat views of it
    return parameter.grad
