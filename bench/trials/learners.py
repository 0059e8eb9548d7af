"""Ways of training new tokens, each behind the same two calls.

`ours` is the engine of this project; the others are what people write by hand: the full matrix under a gradient mask,
PEFT's trainable tokens, and the overlay of the original scripts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.trials.graphs import Graphed
from bench.trials.levers import Lever
from wake2vec.contract.tables import LoraTable
from wake2vec.model.dropout import StepKey, drop_only_keyed
from wake2vec.model.forms import FORMS
from wake2vec.model.loss import blocked_cross_entropy
from wake2vec.model.new_rows import InstalledRows, SharedForms, install_rows, published_head
from wake2vec.phases.p2 import add_lora
from wake2vec.train.optimizers import clip_factor, gradient_norm, make_optimizer

CLIP_NORM = 1.0
LOSS_SCALE = 2.0**14  # gradients of an fp16 body would vanish without; a power of two changes no bit elsewhere
Way = Literal["none", "ours", "masked", "peft", "overlay", "lora"]


class Learner(Protocol):
    """A model with new tokens and a way to train them."""

    def nll(self, inputs: Tensor, targets: Tensor, *, published_alone: bool = False) -> Tensor:
        """Nats of each target, 0 where it is -100, among all tokens or the published ones. [batch, length]"""

    def step(self, inputs: Tensor, targets: Tensor, lr: float) -> Tensor:
        """One optimizer step on a batch; its loss in nats per token, left on the device."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a learner starts from: rows of new tokens for both sides, fp32 `[n_new, d]`."""

    first_new_id: int
    input_rows: Tensor
    output_rows: Tensor
    rows: Literal["shared", "separate", "input"]
    optimizer: Literal["adafactor", "adamw"]
    only_seen: bool = False
    own_steps: bool = False
    shared: SharedForms | None = None  # ids of forms behind the words' rows


class Ours:
    """New rows as a parameter of their own; `only_seen` moves a row only from the first step that met its word."""

    def __init__(self, model: Any, start: Start, levers: Sequence[Lever] = ()) -> None:
        self.model, self.start, self.levers = model.requires_grad_(False), start, levers
        self.installed: InstalledRows = install_rows(
            model,
            first_new_id=start.first_new_id,
            mode=start.rows,
            input_rows=start.input_rows,
            output_rows=None if start.rows == "shared" else start.output_rows,
            shared=start.shared,
        )
        self.parameters = self.installed.trainable()
        own = self.installed.words_that_train() if start.own_steps else ()
        self.optimizer = make_optimizer(start.optimizer, self.parameters, weight_decay=0.0, own_steps=own)
        self.seen = torch.zeros(len(start.input_rows), dtype=torch.bool, device=self.installed.embedding.rows.device)
        self.backward = Graphed(lambda inputs, targets: backward(model, self.installed, inputs, targets))

    def words(self) -> dict[str, nn.Parameter]:
        """The matrices whose rows are words', as they are now."""
        return {name: self.parameters[name] for name in self.installed.words_that_train()}

    @torch.no_grad()
    def nll(self, inputs: Tensor, targets: Tensor, *, published_alone: bool = False) -> Tensor:
        head = self.installed.head.without_new() if published_alone else self.installed.head
        return blocked_cross_entropy(hidden(self.model, inputs), head, targets.flatten()).token_nll.view_as(targets)

    def step(self, inputs: Tensor, targets: Tensor, lr: float) -> Tensor:
        self.optimizer.zero_grad()
        loss = self.backward(inputs, targets)
        factor = self.shape_gradients(inputs, targets)
        if factor is None:
            return loss
        before = {name: rows.detach().clone() for name, rows in self.words().items()} if self.levers else {}
        self.optimizer.step(lr, gradient_factor=factor)
        for lever in self.levers:
            for name, rows in self.words().items():
                lever.settle(name, rows.detach(), before[name], lr)
        return loss

    def shape_gradients(self, inputs: Tensor, targets: Tensor) -> float | None:
        """Levers and the words that wait; what to multiply the gradients by when they are read, None to pass over."""
        for lever in self.levers:
            for name, rows in self.words().items():
                assert rows.grad is not None, "after the backward pass"
                lever.bend(name, rows.detach(), rows.grad)
        if self.start.only_seen:
            self._leave_unseen(inputs, targets)
        return factor_of(self.parameters)

    def _leave_unseen(self, inputs: Tensor, targets: Tensor) -> None:
        met = torch.cat([inputs.flatten(), targets.flatten()]) - self.start.first_new_id
        met, forms = met[met >= 0], self.installed.head.forms
        self.seen[met if forms is None else forms.word_of[met]] = True
        for name, parameter in self.parameters.items():
            if parameter.grad is not None and not name.endswith(FORMS):
                parameter.grad[~self.seen] = 0


def hidden(model: Any, inputs: Tensor) -> Tensor:
    """Last hidden states. [batch, length] -> [batch * length, d]"""
    return model.get_decoder()(input_ids=inputs, use_cache=False).last_hidden_state.flatten(0, 1)


def backward(model: Any, installed: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """Gradients of the mean nats per token, times LOSS_SCALE; that mean."""
    head = getattr(installed, "head", installed)
    scale = LOSS_SCALE / targets.numel()
    loss = blocked_cross_entropy(hidden(model, inputs), head, targets.flatten(), scale=scale)
    torch.autograd.backward(loss.scaled)
    return loss.total.detach() / targets.numel()


def factor_of(parameters: dict[str, nn.Parameter]) -> float | None:
    """What unscales and clips gradients; None where they left the range of fp16, and the step is passed over."""
    norm = float(gradient_norm(parameters)) / LOSS_SCALE
    return clip_factor(norm, CLIP_NORM) / LOSS_SCALE if math.isfinite(norm) else None


class Untrained:
    """The base model with its own tokenizer."""

    def __init__(self, model: Any, tokens: int) -> None:
        self.model, self.head = model, published_head(model, tokens)

    @torch.no_grad()
    def nll(self, inputs: Tensor, targets: Tensor, *, published_alone: bool = False) -> Tensor:
        del published_alone  # there are no others
        return blocked_cross_entropy(hidden(self.model, inputs), self.head, targets.flatten()).token_nll.view_as(
            targets
        )

    def step(self, inputs: Tensor, targets: Tensor, lr: float) -> Tensor:
        raise AssertionError(f"there is nothing to train on {inputs.shape} {targets.shape} at {lr}")


class Adapted:
    """LoRA on the body: alone, over the rows of `ours` as they are, or beside them as they train at their own rate."""

    def __init__(self, base: Untrained | Ours, table: LoraTable, seed: int, *, rows_rate: float = 0.0) -> None:
        """`rows_rate` is that of the rows for a rate of 1 of the adapters; 0: they stand still."""
        self.base, self.model, self.rows_rate = base, base.model, rows_rate
        self.context, self.steps = StepKey(), 0
        self.adapters = add_lora(self.model, table, self.context, seed)
        self.rows = base if isinstance(base, Ours) and rows_rate else None
        if isinstance(base, Ours):
            for parameter in base.parameters.values():
                parameter.requires_grad_(bool(rows_rate))
        self.optimizer = make_optimizer("adamw", self.adapters, weight_decay=0.0)

    def nll(self, inputs: Tensor, targets: Tensor, *, published_alone: bool = False) -> Tensor:
        self.model.eval()
        return self.base.nll(inputs, targets, published_alone=published_alone)

    def step(self, inputs: Tensor, targets: Tensor, lr: float) -> Tensor:
        first = self.steps * len(inputs)
        self.context.set(step=self.steps, sample_ids=torch.arange(first, first + len(inputs), device=inputs.device))
        drop_only_keyed(self.model)
        self.steps += 1
        self.optimizer.zero_grad()
        if self.rows is not None:
            self.rows.optimizer.zero_grad()
        head = self.base.head if isinstance(self.base, Untrained) else self.base.installed
        loss = backward(self.model, head, inputs, targets)
        # clipped apart: their gradients have other sizes
        if self.rows is not None and (factor := self.rows.shape_gradients(inputs, targets)) is not None:
            self.rows.optimizer.step(lr * self.rows_rate, gradient_factor=factor)
        if (factor := factor_of(self.adapters)) is not None:
            self.optimizer.step(lr, gradient_factor=factor)
        return loss


class Whole:
    """Base of the ways that hold one whole matrix: transformers' own forward and loss, torch's own optimizer."""

    def __init__(self, model: Any, start: Start) -> None:
        self.model, self.start = model, start
        self.trained: list[nn.Parameter] = self.prepare()
        self.optimizer = self.make_optimizer()
        self.backward = Graphed(self._backward)

    def prepare(self) -> list[nn.Parameter]:
        """Bring the rows in and say what trains."""
        raise NotImplementedError

    def make_optimizer(self) -> torch.optim.Optimizer:
        if self.start.optimizer == "adamw":
            return torch.optim.AdamW(self.trained, lr=1.0, weight_decay=0.0)
        from transformers.optimization import Adafactor

        return Adafactor(self.trained, lr=1.0, scale_parameter=False, relative_step=False, warmup_init=False)

    @torch.no_grad()
    def nll(self, inputs: Tensor, targets: Tensor, *, published_alone: bool = False) -> Tensor:
        logits = self.model(input_ids=inputs, use_cache=False).logits.float()
        if published_alone:
            logits = logits[..., : self.start.first_new_id]
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)

    def step(self, inputs: Tensor, targets: Tensor, lr: float) -> Tensor:
        self.optimizer.zero_grad(set_to_none=False)
        loss = self.backward(inputs, targets)
        nn.utils.clip_grad_norm_(self.trained, CLIP_NORM)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        return loss

    def _backward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        logits = self.model(input_ids=inputs, use_cache=False).logits.float()
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        torch.autograd.backward(loss)
        return loss.detach()

    def put_rows(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Resize both matrices and write the new rows into them."""
        end = self.start.first_new_id + len(self.start.input_rows)
        weight = self.model.get_input_embeddings().weight
        if end > weight.shape[0]:
            self.model.resize_token_embeddings(end, mean_resizing=False)
        embedding, head = self.model.get_input_embeddings().weight, self.model.get_output_embeddings().weight
        new = slice(self.start.first_new_id, end)
        with torch.no_grad():
            head[new] = self.start.output_rows.to(head)
            embedding[new] = self.start.input_rows.to(embedding)
        return embedding, head


def keep_base(matrix: nn.Parameter, first_new_id: int) -> None:
    """Set the gradient of base rows to zero whenever it is there."""

    def mask(parameter: Tensor) -> None:
        assert parameter.grad is not None, "the hook runs after the gradient is there"
        parameter.grad[:first_new_id] = 0

    register: Callable[[Callable[[Tensor], None]], Any] = matrix.register_post_accumulate_grad_hook
    register(mask)


class Masked(Whole):
    """The full matrix trains, the gradients of its base rows are set to zero."""

    def prepare(self) -> list[nn.Parameter]:
        matrices = list(dict.fromkeys(self.put_rows()))
        self.model.requires_grad_(False)
        for matrix in matrices if self.start.rows != "input" else matrices[:1]:
            matrix.requires_grad_(True)
            keep_base(matrix, self.start.first_new_id)
        return [matrix for matrix in matrices if matrix.requires_grad]


class Peft(Whole):
    """PEFT's `trainable_token_indices`."""

    def prepare(self) -> list[nn.Parameter]:
        from peft import LoraConfig, TaskType, get_peft_model

        tied = self.model.config.tie_word_embeddings
        self.put_rows()
        ids = list(range(self.start.first_new_id, self.start.first_new_id + len(self.start.input_rows)))
        names = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
        config = LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=1,
            target_modules=["q_proj"],
            trainable_token_indices=dict.fromkeys(names, ids),
        )
        self.model = get_peft_model(self.model, config)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_("trainable_tokens_delta" in name)
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


class Overlay(Whole):
    """The original overlay: new input rows train, the input matrix as it began becomes the whole output matrix."""

    def prepare(self) -> list[nn.Parameter]:
        embedding, _ = self.put_rows()
        self.model.requires_grad_(False)
        frozen = nn.Linear(embedding.shape[1], embedding.shape[0], bias=False, device="meta")
        frozen.weight = nn.Parameter(embedding.detach().clone(), requires_grad=False)
        self.model.set_output_embeddings(frozen)
        embedding.requires_grad_(True)
        keep_base(embedding, self.start.first_new_id)
        return [embedding]


RIVALS: dict[Way, Any] = {"masked": Masked, "peft": Peft, "overlay": Overlay}


def cosine(step: int, steps: int, peak: float, warmup: int) -> float:
    """Learning rate with warm-up from peak/warmup and a cosine to 0."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
