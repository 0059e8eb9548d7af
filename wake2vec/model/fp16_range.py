"""Whether a model's activations stay inside fp16, found out by running it, and what is done when they do not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wake2vec.contract.errors import ModelError
from wake2vec.model.layers.paths import decoder_layers, plain
from wake2vec.model.new_rows import InstalledRows, name_of
from wake2vec.model.quantise import is_quantised

# half of fp16's largest number: gradients of loss-scaled sums and other texts need room too
LIMIT = 3.0e4


@dataclass(frozen=True, kw_only=True)
class RangeCheck:
    """The largest activation between layers, where it was, and what was done about it."""

    largest: float
    layer: int
    remedy: str = ""


@torch.no_grad()
def guard_range(
    model: Any, rows: InstalledRows, ids: Tensor, *, limit: float = LIMIT, more: Callable[[], list[float]] = list
) -> RangeCheck:
    """Run some blocks [b, s] and keep the residual stream in fp32 when fp16 is too small for it.

    `more`: what came out of layers that lie on other cards. Raises ModelError, naming the layer, when that does not
    help: a product inside the layer then leaves fp16's range.
    """
    check = _largest(model, ids, more)
    if check.largest <= limit:
        return check
    if not _takes_fp32(model):
        raise _out_of_range(model, check)
    rows.embedding.out_dtype = torch.float32
    again = _largest(model, ids, more)
    if not math.isfinite(again.largest):
        raise _out_of_range(model, again)
    remedy = f"layer {check.layer} reached {check.largest:.3g} in fp16: the residual stream is kept in fp32"
    return RangeCheck(largest=again.largest, layer=again.layer, remedy=remedy)


def _largest(model: Any, ids: Tensor, more: Callable[[], list[float]]) -> RangeCheck:
    """The first layer whose output is not finite, else the one with the largest output."""
    found: list[Tensor] = []
    hooks = watch_outputs(model, found)
    base = plain(model)
    was_training = base.training
    base.eval()  # no dropout: it would ask which samples these are
    try:
        base.get_decoder()(input_ids=ids, use_cache=False)
    finally:
        base.train(was_training)
        for hook in hooks:
            hook.remove()
    sizes = torch.stack(found).tolist() + more()
    for index, size in enumerate(sizes):
        if not math.isfinite(size):
            return RangeCheck(largest=math.inf, layer=index)
    index = max(range(len(sizes)), key=sizes.__getitem__)
    return RangeCheck(largest=sizes[index], layer=index)


def watch_outputs(model: Any, found: list[Tensor]) -> list[Any]:
    """Have the largest output of each layer that runs put into `found`; returns the hooks, to be removed."""
    return [
        layer.register_forward_hook(lambda _m, _i, out: found.append(_size(out if isinstance(out, Tensor) else out[0])))
        for layer in decoder_layers(model)
    ]


def _size(x: Tensor) -> Tensor:
    return x.detach().abs().amax().float()


def _takes_fp32(model: Any) -> bool:
    """Whether fp32 can flow between the layers: quantised ones cast for themselves, and fp32 ones are no matter."""
    linears = [
        module for layer in decoder_layers(model) for module in layer.modules() if hasattr(module, "in_features")
    ]
    return all(is_quantised(module) or module.weight.dtype == torch.float32 for module in linears)


def _out_of_range(model: Any, check: RangeCheck) -> ModelError:
    return ModelError(
        f"{name_of(model)}, layer {check.layer}",
        f"its activations leave the range of fp16 ({check.largest:.3g})",
        "use model.compute = bf16 on a card that has it, or load = nf4 with compute = fp32",
    )
