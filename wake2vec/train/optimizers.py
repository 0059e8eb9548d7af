"""Optimizers over named parameters, in row chunks, with a state that is a flat table of tensors.

Parameters are fp32, or HeldRows, of which each chunk is computed in fp32 and rounded. Temporaries stay small whatever
the size of the matrix (`row_chunks`). Every reduction has a fixed order that depends on the shapes alone, so a resumed
run repeats the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from wake2vec.contract.errors import CheckpointCorrupt, Diverged, ModelError
from wake2vec.contract.tables import TrainTable
from wake2vec.model.precision import HeldRows, row_chunks, worked_in
from wake2vec.phases.base import Prepared

COUNT = "step"  # the state's count of steps, of all parameters together


class Optimizer(Protocol):
    """Moves its parameters against their gradients; its state survives a save and load to the bit."""

    def step(self, lr: float, *, gradient_factor: float | Tensor = 1.0) -> None:
        """One update. Gradients are multiplied by `gradient_factor` (unscaling and clipping) as they are read."""

    def changed(self) -> tuple[int, int]:
        """How many entries the last update changed, and of how many. Raises Diverged where 16 bits cannot hold one."""

    def zero_grad(self) -> None:
        """Set the gradients to zero, keeping their buffers."""

    def state_tensors(self) -> dict[str, Tensor]:
        """The state by name: the live tensors, not copies."""

    def load_state_tensors(self, state: Mapping[str, Tensor]) -> None:
        """Take over a saved state. Raises CheckpointCorrupt when names or shapes differ."""


class _Base:
    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        weight_decay: float = 0.0,
        own_steps: Collection[str] = (),
        elsewhere: Mapping[str, nn.Parameter] | None = None,
    ) -> None:
        """Of the matrices in `own_steps` each row counts its steps from its first gradient on, and rests until then.

        What other ranks move, `elsewhere`, has a state here too, for checkpoints.
        """
        self.parameters = dict(sorted(parameters.items()))
        self.known = {**self.parameters, **(elsewhere or {})}
        self.weight_decay = weight_decay
        self.state: dict[str, Tensor] = {COUNT: torch.zeros((), dtype=torch.int64)}
        for name in own_steps:
            like = self.parameters[name].detach()
            self.state[f"{name}.steps"] = torch.zeros(len(like), 1, dtype=torch.float32, device=like.device)
        # counts of the last update, left on the device until somebody asks: what changed, what 16 bits could not hold
        self._changed, self._lost = list[Tensor](), list[Tensor]()

    def zero_grad(self) -> None:
        for parameter in self.parameters.values():
            if parameter.grad is not None:
                parameter.grad.zero_()

    def state_tensors(self) -> dict[str, Tensor]:
        return dict(self.state)

    def load_state_tensors(self, state: Mapping[str, Tensor]) -> None:
        if state.keys() != self.state.keys():
            odd = ", ".join(sorted(state.keys() ^ self.state.keys())[:5])
            raise CheckpointCorrupt("optimizer state", f"it does not have the tensors of this job (differs in {odd})")
        for name, mine in self.state.items():
            if state[name].shape != mine.shape:
                problem = f"{name} has shape {tuple(state[name].shape)}, expected {tuple(mine.shape)}"
                raise CheckpointCorrupt("optimizer state", problem)
            mine.copy_(state[name])

    def changed(self) -> tuple[int, int]:
        if lost := sum(map(int, self._lost)):
            problem = f"step {int(self.state[COUNT])}: {lost:,} numbers of the new rows left the range of 16 bits"
            raise Diverged(f'{problem}; vocab.dtype = "bf16" has that of fp32, and a smaller train.lr may do')
        return sum(map(int, self._changed)), sum(parameter.numel() for parameter in self.parameters.values())

    def _count(self) -> int:
        """Number of this step, from 1."""
        self._changed, self._lost = [], []
        self.state[COUNT] += 1
        return int(self.state[COUNT])

    def _steps_of(self, name: str, gradient: Tensor) -> Tensor | None:
        """Steps of each row with this one, `[n, 1]`, 0 where it rests; None where all count alike."""
        steps = self.state.get(f"{name}.steps")
        if steps is None:
            return None
        moves = torch.linalg.vector_norm(gradient, ord=torch.inf, dim=1, keepdim=True) > 0
        return steps.add_((moves | (steps > 0)).to(steps.dtype))

    def _keep(self, lr: float, steps: Tensor | None) -> float | Tensor:
        """What weight decay leaves of a row; it begins with the row's first step."""
        return 1.0 - self.weight_decay * lr * (1.0 if steps is None else (steps > 0).to(torch.float32))

    @contextmanager
    def _moving(self, name: str, part: slice = slice(None)) -> Iterator[Tensor]:
        """A chunk to be changed in place, in the numbers that are worked in."""
        parameter = self.parameters[name]
        held = parameter.detach()[part]
        before = held.clone()
        yield (values := held.to(worked_in(parameter)))  # the chunk itself where it is fp32
        if isinstance(parameter, HeldRows):
            parameter.settle(part, values, step=int(self.state[COUNT]))
            self._lost.append(torch.count_nonzero(~held.isfinite()))
        self._changed.append(torch.count_nonzero(held != before))

    def _with_gradients(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        for name, parameter in self.parameters.items():
            yield name, parameter.detach(), _gradient(name, parameter)


class Adafactor(_Base):
    """Adafactor (Shazeer and Stern, 2018) with factored second moments, no momentum and an absolute rate.

    Equal to transformers' Adafactor(scale_parameter=False, relative_step=False, warmup_init=False, beta1=None). All
    statistics range over the given tensor alone. `clip_threshold` is 1 except in the test against a masked full matrix,
    where sqrt(all rows / new rows) must reproduce the masked update.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        clip_threshold: float = 1.0,
        eps: float = 1e-30,
        decay_rate: float = -0.8,
        **more: Any,
    ) -> None:
        super().__init__(parameters, **more)
        self.clip_threshold, self.eps, self.decay_rate = clip_threshold, eps, decay_rate
        for name, parameter in self.known.items():
            like, kind = parameter.detach(), worked_in(parameter)
            if parameter.ndim == 2:
                self.state[f"{name}.row"] = like.new_zeros(parameter.shape[0], dtype=kind)
                self.state[f"{name}.column"] = like.new_zeros(parameter.shape[1], dtype=kind)
            else:
                self.state[f"{name}.square"] = torch.zeros_like(like)

    @torch.no_grad()
    def step(self, lr: float, *, gradient_factor: float | Tensor = 1.0) -> None:
        beta = 1.0 - math.pow(self._count(), self.decay_rate)
        for name, parameter, gradient in self._with_gradients():
            if parameter.ndim == 2:
                self._step_matrix(name, parameter, gradient, lr, beta, gradient_factor)
            else:
                self._step_vector(name, parameter, gradient, lr, beta, gradient_factor)

    def _step_matrix(
        self, name: str, parameter: Tensor, gradient: Tensor, lr: float, beta: float, factor: float | Tensor
    ) -> None:
        row, column = self.state[f"{name}.row"], self.state[f"{name}.column"]
        column_sum = torch.zeros_like(column)
        steps = self._steps_of(name, gradient)
        own = None if steps is None else 1.0 - steps.squeeze(1).clamp(min=1.0).pow(self.decay_rate)
        for part in row_chunks(parameter):
            square = (gradient[part] * factor).square_().add_(self.eps)  # [chunk, d]
            kept = beta if own is None else own[part]
            row[part] = row[part] * kept + square.mean(dim=1) * (1.0 - kept)
            column_sum += square.sum(dim=0)
        column.mul_(beta).add_(column_sum / parameter.shape[0], alpha=1.0 - beta)
        row_factor = (row / row.mean()).rsqrt_() * factor  # [n]
        column_factor = column.rsqrt()  # [d]
        squares = torch.zeros((), dtype=torch.float64, device=parameter.device)
        for part in row_chunks(parameter):
            update = gradient[part] * row_factor[part].unsqueeze(1) * column_factor
            squares += update.square_().sum().double()
        clip = (squares / parameter.numel()).sqrt().div_(self.clip_threshold).clamp_(min=1.0)
        rate = (lr / clip).to(gradient.dtype)  # stays on the device: no wait for it
        for part in row_chunks(parameter):
            update = gradient[part] * row_factor[part].unsqueeze(1) * column_factor
            with self._moving(name, part) as values:
                kept = self._keep(lr, None if steps is None else steps[part])
                values.mul_(kept).sub_(update.mul_(rate))

    def _step_vector(
        self, name: str, parameter: Tensor, gradient: Tensor, lr: float, beta: float, factor: float | Tensor
    ) -> None:
        square = self.state[f"{name}.square"]
        gradient = gradient * factor
        square.mul_(beta).add_(gradient.square().add_(self.eps), alpha=1.0 - beta)
        update = square.rsqrt().mul_(gradient)
        clip = update.square().mean().sqrt().div_(self.clip_threshold).clamp_(min=1.0)
        with self._moving(name) as values:
            values.mul_(1.0 - self.weight_decay * lr).sub_(update.div_(clip).mul_(lr))


class AdamW(_Base):
    """AdamW (Loshchilov and Hutter, 2019), equal to torch.optim.AdamW; the decay touches only what is given here."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        **more: Any,
    ) -> None:
        super().__init__(parameters, **more)
        self.betas, self.eps = betas, eps
        for name, parameter in self.known.items():
            for moment in ("mean", "square"):
                self.state[f"{name}.{moment}"] = torch.zeros_like(parameter.detach(), dtype=worked_in(parameter))

    @torch.no_grad()
    def step(self, lr: float, *, gradient_factor: float | Tensor = 1.0) -> None:
        count = self._count()
        first, second = self.betas
        size = lr / (1.0 - first**count)
        root = math.sqrt(1.0 - second**count)
        for name, parameter, full_gradient in self._with_gradients():
            mean, square = self.state[f"{name}.mean"], self.state[f"{name}.square"]
            steps = self._steps_of(name, full_gradient)
            for part in row_chunks(parameter):
                gradient = full_gradient[part] * gradient_factor
                mean[part].lerp_(gradient, 1.0 - first)
                square[part].mul_(second).addcmul_(gradient, gradient, value=1.0 - second)
                with self._moving(name, part) as values:
                    if steps is None:
                        values.mul_(1.0 - self.weight_decay * lr)
                        values.addcdiv_(mean[part], (square[part].sqrt() / root).add_(self.eps), value=-size)
                    else:
                        own = steps[part].clamp(min=1.0)
                        bottom = (square[part] / (1.0 - second**own)).sqrt_().add_(self.eps)
                        update = (mean[part] / (1.0 - first**own)).div_(bottom)
                        values.mul_(self._keep(lr, steps[part])).sub_(update, alpha=lr)


def make_optimizer(
    kind: Literal["adafactor", "adamw"], parameters: Mapping[str, nn.Parameter], **more: Any
) -> Optimizer:
    """The optimizer that a job file names."""
    return (Adafactor if kind == "adafactor" else AdamW)(parameters, **more)


def optimizer_of(train: TrainTable, prepared: Prepared) -> Optimizer:
    """As the job says; where ranks train the same, each has the same state."""
    own_steps = prepared.rows.words_that_train() if train.row_steps == "own" else ()
    return make_optimizer(
        train.optimizer,
        prepared.trainable,
        weight_decay=train.weight_decay,
        own_steps=own_steps,
        elsewhere=prepared.elsewhere,
    )


@torch.no_grad()
def squares_of(parameters: Mapping[str, nn.Parameter]) -> dict[str, list[float]]:
    """The square of each gradient's norm, in the parts that are summed in their order.

    Raises ModelError for a parameter that got no gradient.
    """
    found: dict[str, list[Tensor]] = {}
    for name, parameter in parameters.items():
        gradient = _gradient(name, parameter)
        found[name] = [torch.linalg.vector_norm(gradient[part]).double().square() for part in row_chunks(gradient)]
    every = [part for parts in found.values() for part in parts]
    values = iter(torch.stack([one.to(every[0].device) for one in every]).tolist() if every else ())
    return {name: [next(values) for _ in parts] for name, parts in found.items()}


def norm_of(squares: Mapping[str, Sequence[float]]) -> float:
    """Euclidean norm of all gradients, in fp64, in the order of names and rows. Not finite when any of them is not."""
    total = 0.0
    for _, parts in sorted(squares.items()):
        for part in parts:
            total += part
    return math.sqrt(total)


def gradient_norm(parameters: Mapping[str, nn.Parameter]) -> float:
    return norm_of(squares_of(parameters))


def clip_factor(norm: float, limit: float) -> float:
    """What to multiply gradients by so that their norm is at most `limit`, as torch's clip_grad_norm_ does."""
    return min(1.0, limit / (norm + 1e-6))


def _gradient(name: str, parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise ModelError(
            name, "got no gradient in this step", "it is not reached from the loss: check lora.targets and rows"
        )
    return parameter.grad
