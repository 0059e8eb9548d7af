"""One optimizer step: the gradient of the whole step whatever the micro-batch, then one update."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wake2vec.contract.errors import Diverged, OutOfMemory
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.plan import Plan
from wake2vec.contract.spec import DataTable, TrainTable
from wake2vec.data.blocks import Blocks
from wake2vec.data.permutation import blocks_of_step
from wake2vec.data.seen_words import SeenWords
from wake2vec.model.device import brief, is_out_of_memory
from wake2vec.model.dropout import drop_only_keyed
from wake2vec.model.loss import IGNORE, blocked_cross_entropy
from wake2vec.model.new_rows import InstalledRows
from wake2vec.phases.base import Prepared
from wake2vec.train.movement import lora_norm, moving_rows
from wake2vec.train.optimizers import Optimizer, clip_factor, gradient_norm
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


class Stepper:
    """Runs steps of one job under the present plan."""

    def __init__(
        self,
        prepared: Prepared,
        blocks: Blocks,
        optimizer: Optimizer,
        *,
        train: TrainTable,
        data: DataTable,
        only_seen: bool,
    ) -> None:
        self._prepared, self._blocks, self._optimizer = prepared, blocks, optimizer
        self._train, self._data = train, data
        self._structure: dict[str, Any] | None = None
        head = prepared.rows.head
        self._met = (
            SeenWords(blocks, batch=train.batch, seed=data.seed, first_new_id=head.first_new_id, n_new=len(head.rows))
            if only_seen
            else None
        )

    def run(self, step: int, *, lr: float, plan: Plan, scale: LossScale, stop: Stop) -> StepResult | None:
        """Take the step, or return None with nothing changed when a stop was asked for in the middle of it.

        A step whose fp16 gradients overflow is taken again at half the scale. Raises Diverged when the loss itself is
        not finite, and whatever the device raises when it has no memory left: nothing has changed then either.
        """
        while True:
            total, tokens = self._accumulate(step, plan, scale, stop)
            if total is None:
                return None
            failpoint("step.clip")
            norm = float(gradient_norm(self._prepared.trainable)) / scale.value
            if math.isfinite(norm) and math.isfinite(total):
                break
            if not math.isfinite(total) or scale.value <= 1.0:
                raise Diverged(f"step {step}: the loss is {total / tokens} and the gradient norm {norm}")
            scale.halve()
        moving, lora = moving_rows(self._prepared.rows), lora_norm(self._prepared.trainable)
        self._update(lr, clip_factor(norm, self._train.clip_norm) / scale.value)
        scale.count_clean()
        return StepResult(
            loss=total / tokens,
            tokens=tokens,
            grad_norm=norm,
            entries_changed=self._optimizer.share_changed(),
            rows_moving=moving,
            lora_b_norm=lora,
            structure=self._structure,
        )

    def can_have_moved(self, steps: int) -> bool:
        """Whether so many steps have given anything a reason to move: rows rest until their words are met."""
        return self._met is None or bool(self._met.up_to(steps - 1).any())

    def _update(self, lr: float, factor: float) -> None:
        try:
            failpoint("step.update")
            self._optimizer.step(lr, gradient_factor=factor)
            failpoint("step.updated")
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                # some weights may have moved already: only the last saved state is whole
                raise OutOfMemory(f"the optimizer's update ran out of memory: {brief(error)}") from error
            raise

    def _accumulate(self, step: int, plan: Plan, scale: LossScale, stop: Stop) -> tuple[float | None, int]:
        """Sum of nats over the step's targets, gradients left in place; None when a stop was asked for."""
        self._optimizer.zero_grad()
        drop_only_keyed(self._prepared.model)
        samples = range(step * self._train.batch, (step + 1) * self._train.batch)
        indices = blocks_of_step(step, self._train.batch, len(self._blocks), self._data.seed)
        inputs, targets = (torch.from_numpy(part).to(self._prepared.device) for part in self._blocks.batch(indices))
        tokens = int((targets != IGNORE).sum())
        total = torch.zeros((), dtype=torch.float64, device=self._prepared.device)
        for start in range(0, self._train.batch, plan.micro_batch):
            part = slice(start, start + plan.micro_batch)
            ids = torch.tensor(samples[part], device=self._prepared.device)
            for piece in pieces(inputs[part], targets[part], ids, plan.block_splits):
                if stop.is_asked:
                    return None, tokens
                total += self._forward_backward(step, piece, scale.value / tokens)
        structure, met = (
            self._prepared.structure,
            None if self._met is None else torch.from_numpy(self._met.up_to(step)),
        )
        if structure is not None:
            self._structure = structure.add_gradients(step, scale.value)
            met = None if met is None else met | structure.named(len(met))
        if met is not None:
            keep_met_rows(self._prepared.rows, met)
        return float(total), tokens

    def _forward_backward(self, step: int, piece: Slice, scale: float) -> Tensor:
        self._prepared.context.set(step=step, sample_ids=piece.samples, position_offset=piece.offsets)
        failpoint("step.forward")
        hidden = self._prepared.hidden(piece.inputs).flatten(0, 1)  # [tokens, d]
        loss = blocked_cross_entropy(hidden, self._prepared.rows.head, piece.targets.flatten(), scale=scale)
        failpoint("step.backward")
        loss.scaled.backward()  # type: ignore[no-untyped-call]
        return loss.token_nll.double().sum()


@torch.no_grad()
def keep_met_rows(rows: InstalledRows, met: Tensor) -> None:
    """Zero the gradient of new rows whose words training has not met yet. met: [n_new] bool

    The softmax gives every row a small gradient that pushes it down. An optimizer that divides by the size of a row's
    own gradients turns that into a full step, so words that are rare in the text would be trained away. Once a word has
    been met every step counts: to move its row only where it occurs would leave out what pushes it down, and it would
    end up too probable everywhere (both measured in docs/quality.md).
    """
    for parameter in rows.trainable().values():
        if parameter.grad is not None:
            parameter.grad.masked_fill_(~met.to(parameter.device).unsqueeze(1), 0.0)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """What goes through the model at once."""

    inputs: Tensor  # [b, s]
    targets: Tensor  # [b, s]
    samples: Tensor  # [b] number of each sample in the whole job
    offsets: Tensor  # [b] where in its block each sample begins


def pieces(inputs: Tensor, targets: Tensor, samples: Tensor, splits: int) -> list[Slice]:
    """One piece, or with a shortened context `splits` of them: the same targets in the same order. [b, L] each"""
    length = -(-inputs.shape[1] // splits)
    return [
        Slice(
            inputs=inputs[:, start : start + length],
            targets=targets[:, start : start + length],
            samples=samples,
            offsets=torch.full_like(samples, start),
        )
        for start in range(0, inputs.shape[1], length)
    ]
