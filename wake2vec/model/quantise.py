"""bitsandbytes: linear layers in NF4 and int8."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from wake2vec.contract.errors import ModelError
from wake2vec.model.outline import is_transposed
from wake2vec.model.precision import Precision

BLOCK = 64  # values that share a scale in NF4


def swap_linears(model: nn.Module, precision: Precision, keep: Collection[nn.Module | None]) -> int:
    """Replace each linear layer but those of `keep` by its quantised kind, still empty; return how many."""
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if (type(child) is nn.Linear or is_transposed(child)) and child not in keep
    ]
    for parent, name, child in found:
        setattr(parent, name, _empty(child, precision))
    return len(found)


def _empty(linear: Any, precision: Precision) -> nn.Module:
    import bitsandbytes as bnb

    size = tuple(linear.weight.shape) if is_transposed(linear) else (linear.in_features, linear.out_features)
    bias = linear.bias is not None
    module: Any
    if precision.load == "int8":
        module = bnb.nn.Linear8bitLt(*size, bias=bias, has_fp16_weights=False, device="meta")
    else:
        module = bnb.nn.Linear4bit(
            *size, bias=bias, compute_dtype=precision.dtype, compress_statistics=True, quant_type="nf4", device="meta"
        )
        # where the CPU has AVX512-BF16, one pass in eval mode would repack the weight, after which no gradient flows
        module.support_avx512bf16_for_cpu = False
    module.was_transposed = is_transposed(linear)  # its published weight is [in, out]
    return module


def fill_linear(module: nn.Module, weight: Tensor, precision: Precision, device: torch.device) -> None:
    """Quantise a published weight into an empty layer, on the device. [out, in]"""
    import bitsandbytes as bnb

    if precision.load == "int8":
        module.weight = bnb.nn.Int8Params(
            weight.to(torch.float16).contiguous(), requires_grad=False, has_fp16_weights=False
        ).to(device)
        return
    full = weight.to(device=device, dtype=precision.dtype).contiguous()
    module.weight = bnb.nn.Params4bit(
        full, requires_grad=False, compress_statistics=True, quant_type="nf4", module=module
    ).to(device)


def require_whole_rows(model: nn.Module) -> None:
    """Raises ModelError where the layers of bitsandbytes would compute with the scales of other blocks, on a CPU."""
    for name, module in model.named_modules():
        if type(module).__name__ == "Linear4bit" and (width := module.in_features) % BLOCK:
            problem = f"its rows of {width} values are no whole number of blocks of {BLOCK}, which goes wrong on a CPU"
            raise ModelError(name, f"{problem} in 4 bits", 'set model.load = "fp32", or train on a GPU')


def is_quantised(module: nn.Module) -> bool:
    """Whether a layer came from `swap_linears`."""
    return type(module).__name__ in ("Linear4bit", "Linear8bitLt")


class Nf4Weight:
    """Dequantises a weight in 4 bits: [out, in] at each call.

    Calls the two operators directly: on the way through Params4bit and QuantState, Python took longer than a T4.
    """

    def __init__(self, codes: Tensor, state: Any, dtype: torch.dtype) -> None:
        self._codes, self._state, self._dtype = codes, state, dtype
        # all in one row: where rows are no whole number of blocks, bitsandbytes 0.50.2 on a CPU mixes up the scales
        self._shape = state.shape if state.shape[-1] % state.blocksize == 0 else (state.shape.numel(),)

    def __call__(self) -> Tensor:
        state, operators = self._state, torch.ops.bitsandbytes
        absmax = state.absmax
        if state.nested:
            inner = state.state2
            absmax = operators.dequantize_blockwise.default(
                absmax, inner.absmax, inner.code, inner.blocksize, inner.dtype
            )
            absmax += state.offset
        full: Tensor = operators.dequantize_4bit.default(
            self._codes, absmax, state.blocksize, state.quant_type, self._shape, state.dtype
        ).view(state.shape)
        return full if full.dtype == self._dtype else full.to(self._dtype)
