"""Proof, before a layer path trains, that it computes the library's own forward and gradient: on this model and card.

A stretch of a real block goes through the decoder there and back as the library runs it, and again on the path, layer
for layer in step: each layer is given the hidden states and the gradient that the library had there. So nothing adds up
over the depth, and what differs has a place. How far apart the two may be is measured, not guessed: the library runs
once more with each layer's input moved by one unit in the last place of the job's precision.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wake2vec.contract.plan import LayerPath
from wake2vec.model.layers.paths import decoder_layers, plain, use_layers

TOKENS = 64
# Times what one unit does. Measured on random models of 4 to 48 layers, other orders of summation stay below 1 in half
# precision and 1.5 in fp32; one layer of 48 without its rotation is above 6 in bf16, 50 in fp16 and 100,000 in fp32.
MARGIN = 3.0
SHRINK = (1.0, 2.0**-8, 2.0**-16)  # of the gradient at the end, until fp16 holds it all the way down

At = Callable[[int, Tensor], Tensor]  # a place (0: before the first layer) and what comes by there


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was found where a path differs first, or came nearest to it."""

    path: LayerPath
    place: str
    apart: float  # relative distance of a token's numbers, averaged over the tokens
    bound: float

    @property
    def holds(self) -> bool:
        return self.apart <= self.bound  # not so where either is no number

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.place} is {self.apart:.2g} away from the library's; rounding explains {self.bound:.2g}"
        )


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The library's own pass, and how far one unit in the last place moves it at each place."""

    ids: Tensor  # [1, s]
    values: list[Tensor]  # input embeddings, each layer's output, last hidden states. [1, s, d]
    gradients: list[Tensor]  # of the same without the last. [1, s, d]
    adapters: Tensor  # gradients of all LoRA matrices. [n]
    shrink: float
    noise: list[float]


def refer(model: Any, ids: Tensor, dtype: torch.dtype, path: LayerPath = "autograd") -> Reference:
    """Run ids [1, s] through the library's layers; `path` may be `recompute` where memory is short."""
    for shrink in SHRINK:
        right = _library(model, ids, path, shrink)
        if all(bool(torch.isfinite(x).all()) for x in (*right.values, *right.gradients)):
            break
    right.noise.extend(_distances(model, path, right, unit=torch.finfo(dtype).eps))
    return right


def prove(model: Any, path: LayerPath, right: Reference) -> Proof:
    """Compare a path with the library's pass."""
    found = _distances(model, path, right)
    bounds = [MARGIN * noise for noise in right.noise]
    broken = [place for place, (apart, bound) in enumerate(zip(found, bounds, strict=True)) if not apart <= bound]
    nearest = max(range(len(found)), key=lambda place: found[place] / max(bounds[place], 1e-30))
    place = broken[0] if broken else nearest
    return Proof(path=path, place=_names(len(right.gradients) - 1)[place], apart=found[place], bound=bounds[place])


def _names(layers: int) -> list[str]:
    """The places in the order of the distances: there, back, and what the adapters got."""
    there = [f"the output of layer {index}" for index in range(layers)]
    back = [f"the gradient of the input of layer {index}" for index in reversed(range(layers))]
    ends = ["the last hidden states", "the gradient of the last layer's output"]
    return [*there, *ends, *back, "the gradient of the adapters"]


def _library(model: Any, ids: Tensor, path: LayerPath, shrink: float) -> Reference:
    values: list[Tensor] = []
    gradients: dict[int, Tensor] = {}

    def there(_place: int, x: Tensor) -> Tensor:
        values.append(x.detach())
        return x.clone()

    def back(place: int, grad: Tensor) -> Tensor:
        gradients[place] = grad.clone()  # a layer may add to what it is given
        return grad

    hidden, adapters = _pass(model, ids, path, there, back, shrink)
    in_order = [gradients[place] for place in sorted(gradients)]
    return Reference(ids=ids, values=[*values, hidden], gradients=in_order, adapters=adapters, shrink=shrink, noise=[])


def _distances(model: Any, path: LayerPath, right: Reference, *, unit: float = 0.0) -> list[float]:
    """How far a path is from the library's pass, each layer given what the library's had, moved by `unit` of itself."""
    generator = torch.Generator().manual_seed(5)
    there_apart: list[Tensor] = []
    back_apart: list[Tensor] = []

    def there(place: int, x: Tensor) -> Tensor:
        given = right.values[place]
        if place:
            there_apart.append(_apart(x, given))
        return given * (1 + unit * _signs(given, generator)) if unit else given.clone()

    def back(place: int, grad: Tensor) -> Tensor:
        back_apart.append(_apart(grad, right.gradients[place]))
        return right.gradients[place].clone()

    hidden, adapters = _pass(model, right.ids, path, there, back, right.shrink)
    at_end = [_apart(hidden, right.values[-1]), *back_apart]
    lora = [_apart(adapters, right.adapters)] if len(adapters) else []
    return [float(x) for x in (*there_apart, *at_end, *lora)]


def _pass(model: Any, ids: Tensor, path: LayerPath, there: At, back: At, shrink: float) -> tuple[Tensor, Tensor]:
    """There and back once; last hidden states [1, s, d] and gradients of all LoRA matrices [n]."""
    use_layers(model, path)
    base, places, start = plain(model), itertools.count(), list[Tensor]()

    def station(_module: nn.Module, _inputs: Any, out: Any) -> Any:
        x, place = (out if isinstance(out, Tensor) else out[0]), next(places)
        if place == 0:
            start.append(x := x.detach().requires_grad_())
        x = _Station.apply(x, place, there, back)  # type: ignore[no-untyped-call]
        return x if isinstance(out, Tensor) else (x, *out[1:])

    hooks = [part.register_forward_hook(station) for part in (base.get_input_embeddings(), *decoder_layers(model))]
    devices = [ids.device] if ids.is_cuda else []
    try:
        with torch.random.fork_rng(devices), _awake(base) as adapters:
            torch.manual_seed(0)  # for what a model itself drops out
            hidden = base.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
            end = _signs(hidden, torch.Generator().manual_seed(6)) * shrink
            _, *found = torch.autograd.grad(hidden, [*start, *adapters], end, allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    flat = [grad.flatten() for grad in found if grad is not None]
    return hidden.detach(), torch.cat(flat) if flat else torch.empty(0)


class _Station(torch.autograd.Function):
    """Between two layers: what comes by is looked at there and back, and may be exchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, place: int, there: At, back: At) -> Tensor:
        ctx.place, ctx.back = place, back
        return there(place, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.back(ctx.place, grad), None, None, None


@contextmanager
def _awake(base: nn.Module) -> Iterator[list[nn.Parameter]]:
    """All LoRA matrices, those that begin as zeros at random values for as long as this lasts."""
    adapters = {name: weight for name, weight in base.named_parameters() if "lora_" in name and weight.requires_grad}
    asleep = {weight: weight.data for name, weight in adapters.items() if "lora_B" in name}
    for place, (weight, data) in enumerate(asleep.items()):
        generator = torch.Generator(data.device).manual_seed(place)
        weight.data = torch.empty_like(data).normal_(std=1 / math.sqrt(data.shape[0]), generator=generator)
    try:
        yield list(adapters.values())
    finally:
        for weight, data in asleep.items():
            weight.data = data


def _apart(found: Tensor, right: Tensor) -> Tensor:
    """Mean over the tokens of the relative distance; one that is nearly nothing counts as a hundredth of the rest.

    A mean of ratios, since in a real model one token's numbers may be a thousand times those of the others.
    """
    found, right = found.detach().float(), right.float()
    sizes = right.norm(dim=-1)
    floor = (0.01 * sizes.square().mean().sqrt()).clamp_min(1e-30)
    return ((found - right).norm(dim=-1) / torch.maximum(sizes, floor)).mean()


def _signs(x: Tensor, generator: torch.Generator) -> Tensor:
    """-1 or 1 for each element, in its dtype."""
    drawn = torch.randint(0, 2, x.shape, generator=generator, dtype=torch.int8) * 2 - 1
    return drawn.to(device=x.device, dtype=x.dtype)
