"""A frozen linear layer, its backward pass written out: gradients go through it and into its LoRA, never into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wake2vec.model.dropout import KeyedDropout, keep_mask
from wake2vec.model.layers.kernels import product
from wake2vec.model.quantise import Nf4Weight


class UnknownLayer(Exception):
    """A module is not of a kind that the written-out path knows; the message says which."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """LoRA beside a frozen layer: y += scaling * B A dropout(x)."""

    down: nn.Parameter  # A [r, in]
    up: nn.Parameter  # B [out, r]
    scaling: float
    dropout: KeyedDropout | None
    lent: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict, compare=False)

    def mask(self, x: Tensor, shape: tuple[int, int]) -> Tensor | None:
        """Which elements of the input stay; None when all do. x [tokens, in], shape (b, s) -> [tokens, in] bool"""
        if self.dropout is None or not self.dropout.training or self.dropout.p == 0.0:
            return None
        keys = self.dropout.context.token_keys(*shape, x.device)
        return keep_mask(keys, x.shape[1], self.dropout.salt(), self.dropout.p)

    def factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A and B in the dtype of the activations, kept for the backward pass. [r, in], [out, r]"""
        found = self.down.detach().to(dtype), self.up.detach().to(dtype)
        self.lent["factors"] = found
        return found

    def factors_again(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """What `factors` returned last, given back: no update comes between a forward pass and its backward pass."""
        return self.lent.pop("factors", None) or (self.down.detach().to(dtype), self.up.detach().to(dtype))

    def strength(self, mask: Tensor | None) -> float:
        """The factor of the adapter's part: its scaling, and what dropout is made up for with."""
        return self.scaling if mask is None or self.dropout is None else self.scaling / (1.0 - self.dropout.p)


class FrozenLinear:
    """y = x W' + b, plus an adapter's part. Tensors are [tokens, features]."""

    def __init__(self, weight: Callable[[], Tensor], bias: Tensor | None, adapter: Adapter | None) -> None:
        self.weight = weight
        self.bias = bias
        self.adapter = adapter

    def forward(self, x: Tensor, shape: tuple[int, int], add: Tensor | None = None) -> Tensor:
        """The layer's output, added to `add` when given."""
        weight = self.weight()
        low = x if x.dtype == weight.dtype else x.to(weight.dtype)
        if add is not None and self.bias is None and add.dtype == weight.dtype:
            y = torch.addmm(add, low, weight.t())
        else:
            bias = self.bias if self.bias is None or self.bias.dtype == weight.dtype else self.bias.to(weight.dtype)
            y = F.linear(low, weight, bias)
            y = y if y.dtype == x.dtype else y.to(x.dtype)
            y = y if add is None else y.add_(add)
        del weight
        if self.adapter is not None:
            y = self._adapt(y, x, shape)
        return y

    def _adapt(self, y: Tensor, x: Tensor, shape: tuple[int, int]) -> Tensor:
        adapter = self.adapter
        assert adapter is not None, "no adapter"
        mask = adapter.mask(x, shape)
        down, up = adapter.factors(x.dtype)
        inner = (x if mask is None else x * mask) @ down.t()  # [tokens, r]
        return y.addmm_(inner, up.t(), alpha=adapter.strength(mask))

    def backward(
        self, grad: Tensor, x: Callable[[], Tensor], shape: tuple[int, int], into: Gradients, add: Tensor | None = None
    ) -> Tensor:
        """Gradient of the input (added in place to `add` when given); the adapter's goes to `into`."""
        weight = self.weight()
        low = grad if grad.dtype == weight.dtype else grad.to(weight.dtype)
        if add is not None and add.dtype == weight.dtype:
            total = add.addmm_(low, weight)
        else:
            total = (low @ weight).to(grad.dtype)
            total = total if add is None else add.add_(total)
        del weight
        if self.adapter is not None:
            self._adapter_backward(total, grad, x(), shape, into)
        return total

    def _adapter_backward(
        self, total: Tensor, grad: Tensor, x: Tensor, shape: tuple[int, int], into: Gradients
    ) -> None:
        adapter = self.adapter
        assert adapter is not None, "no adapter"
        down, up = adapter.factors_again(x.dtype)
        mask = adapter.mask(x, shape)
        dropped, strength = (x if mask is None else x * mask), adapter.strength(mask)
        inner = dropped @ down.t()  # [tokens, r]
        # in fp32 and scaled last: fp16 products of loss-scaled gradients are near the top of their range
        into.add(adapter.up, product(grad.t(), inner).mul_(strength))
        delta = (grad @ up).mul_(strength)  # [tokens, r]
        into.add(adapter.down, product(delta.t(), dropped))
        if mask is None:
            total.addmm_(delta, down)
        else:
            total.add_((delta @ down).mul_(mask))


class Gradients:
    """Gradients of a layer's adapters, gathered in the order in which its parameters are listed."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self._slot = {id(parameter): index for index, parameter in enumerate(parameters)}
        self._dtypes = [parameter.dtype for parameter in parameters]
        self.found: list[Tensor | None] = [None] * len(parameters)

    def add(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        index = self._slot[id(parameter)]
        self.found[index] = gradient.to(self._dtypes[index])


def frozen_linear(module: Any) -> FrozenLinear:
    """Read a layer: nn.Linear or NF4, plain or wrapped by PEFT. Raises UnknownLayer for anything else."""
    if hasattr(module, "base_layer") and hasattr(module, "lora_A"):
        inner = frozen_linear(module.base_layer)
        return FrozenLinear(inner.weight, inner.bias, _adapter(module))
    bias = getattr(module, "bias", None)
    if type(module).__name__ == "Linear4bit":
        return FrozenLinear(Nf4Weight(module.weight.data, module.weight.quant_state, module.compute_dtype), bias, None)
    if type(module) is nn.Linear:
        if module.weight.requires_grad:
            raise UnknownLayer(f"{type(module).__name__} whose weight trains")
        return FrozenLinear(lambda: module.weight, bias, None)
    raise UnknownLayer(type(module).__name__)


def _adapter(module: Any) -> Adapter | None:
    names = list(module.active_adapters)
    if len(names) != 1 or module.merged or module.disable_adapters:
        raise UnknownLayer(f"a LoRA layer with {len(names)} active adapters, or merged, or switched off")
    name = names[0]
    if getattr(module, "lora_variant", {}).get(name) is not None or getattr(module, "use_dora", {}).get(name):
        raise UnknownLayer("a LoRA variant (DoRA or another)")
    if module.lora_A[name].bias is not None or module.lora_B[name].bias is not None:
        raise UnknownLayer("LoRA with a bias")
    dropout = module.lora_dropout[name]
    if isinstance(dropout, nn.Dropout) and dropout.p > 0.0:
        raise UnknownLayer("LoRA with plain dropout: call key_dropouts first")
    return Adapter(
        down=module.lora_A[name].weight,
        up=module.lora_B[name].weight,
        scaling=float(module.scaling[name]),
        dropout=dropout if isinstance(dropout, KeyedDropout) else None,
    )
