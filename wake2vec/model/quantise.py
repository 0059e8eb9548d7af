"""bitsandbytes: linear layers in NF4 and int8, and embedding matrices held in fewer bits."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from wake2vec.contract.errors import ModelError
from wake2vec.model.outline import is_transposed
from wake2vec.model.precision import Precision

BLOCK = 64  # values that share a scale in NF4
HEAD_CHUNK = 4096  # rows that are quantised, and dequantised, at a time


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
        if type(module).__name__ == "Linear4bit" and (width := module.in_features) % BLOCK:  # type: ignore[operator]
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


class Int8Rows(nn.Module):
    """Base rows as int8 with one fp32 scale a row: half the memory of fp16, about 0.4 % error."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self._dtype, self.width = weight.dtype, weight.shape[1]
        self.codes = nn.Buffer(torch.empty(weight.shape, dtype=torch.int8, device=weight.device), persistent=False)
        self.scale = nn.Buffer(torch.empty(weight.shape[0], 1, device=weight.device), persistent=False)
        for start in range(0, weight.shape[0], HEAD_CHUNK):
            part = slice(start, start + HEAD_CHUNK)
            rows = weight[part].detach().float()
            scale = rows.abs().amax(dim=1, keepdim=True).clamp_(min=1e-30) / 127
            self.codes[part] = (rows / scale).round_().to(torch.int8)
            self.scale[part] = scale

    @property
    def device(self) -> torch.device:
        return self.codes.device

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    def lookup(self, ids: Tensor) -> Tensor:
        return (self.codes[ids].float() * self.scale[ids]).to(self._dtype)

    def block(self, start: int, stop: int) -> Tensor:
        return (self.codes[start:stop].to(self._dtype)).mul_(self.scale[start:stop].to(self._dtype))

    def logits(self, hidden: Tensor) -> Tensor:
        return blocked_logits(self, hidden, self.codes.shape[0])

    def trainable(self) -> Tensor | None:
        return None


class Nf4Rows(nn.Module):
    """Base rows as NF4 with double quantisation, in chunks of HEAD_CHUNK rows: a quarter of the memory of fp16."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        import bitsandbytes as bnb

        self._dtype, self._device = weight.dtype, weight.device
        self.count, self.width = weight.shape
        self.chunks = [
            bnb.functional.quantize_4bit(
                weight[start : start + HEAD_CHUNK].detach().contiguous(), compress_statistics=True, quant_type="nf4"
            )
            for start in range(0, weight.shape[0], HEAD_CHUNK)
        ]

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    def lookup(self, ids: Tensor) -> Tensor:
        raise NotImplementedError("NF4 rows are for the output side: a lookup would dequantise whole chunks")

    def block(self, start: int, stop: int) -> Tensor:
        first, last = start // HEAD_CHUNK, (stop - 1) // HEAD_CHUNK
        full = torch.empty((last - first + 1) * HEAD_CHUNK, self.width, dtype=self._dtype, device=self._device)
        for index in range(first, last + 1):
            codes, state = self.chunks[index]
            offset = (index - first) * HEAD_CHUNK
            full[offset : offset + state.shape[0]] = Nf4Weight(codes, state, self._dtype)()
        return full[start - first * HEAD_CHUNK : stop - first * HEAD_CHUNK]

    def logits(self, hidden: Tensor) -> Tensor:
        return blocked_logits(self, hidden, self.count)

    def trainable(self) -> Tensor | None:
        return None


def blocked_logits(rows: Int8Rows | Nf4Rows, hidden: Tensor, count: int) -> Tensor:
    """Logits over rows that are dequantised a block at a time. [..., d] -> [..., count]"""
    spans = [(start, min(start + HEAD_CHUNK, count)) for start in range(0, count, HEAD_CHUNK)]
    return torch.cat([nn.functional.linear(hidden, rows.block(*span).to(hidden.dtype)) for span in spans], dim=-1)
