"""Dropout whose mask is a pure function of (seed, step, module, sample, position, feature).

The mask does not depend on the micro-batch, on how often a layer is recomputed, or on a block being split in two, and
needs no random state in a checkpoint. A 32-bit integer hash per two features gives two 16-bit draws, so the rate is
exact to 1/65536.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

CHUNK_ELEMENTS = 8 << 20  # of one int32 temporary
# "lowbias32" by Chris Wellons, github.com/skeeto/hash-prospector: a bijective 32-bit mix of low measured bias
FIRST, SECOND = 0x7FEB352D, 0x846CA68B - (1 << 32)
GOLDEN = 0x9E3779B9 - (1 << 32)


class StepKey:
    """Where the loop says which samples are in the model now. One object is shared by every KeyedDropout.

    Set it before each forward pass and leave it until after the backward pass, which may recompute layers.
    """

    def __init__(self) -> None:
        self.step = 0
        self.sample_ids: Tensor | None = None  # [b] int64
        self.position_offset: Tensor | None = None  # [b] int64

    def set(self, *, step: int, sample_ids: Tensor, position_offset: Tensor | None = None) -> None:
        """Samples are numbered for the whole job; an offset is where in its block a sample's first token stands."""
        self.step = step
        self.sample_ids = sample_ids
        self.position_offset = torch.zeros_like(sample_ids) if position_offset is None else position_offset


class KeyedDropout(nn.Module):
    """Inverted dropout at rate p with a keyed mask; the identity in eval mode or at p = 0."""

    def __init__(self, p: float, *, name: str, context: StepKey, seed: int) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout rate {p} is not in [0, 1)")
        self.p, self.name, self.context, self.seed = p, name, context, seed

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, f] -> [b, s, f]"""
        if not self.training or self.p == 0.0:
            return x
        return _Drop.apply(x, self.token_keys(x), self.p)  # type: ignore[no-untyped-call]

    def token_keys(self, x: Tensor) -> Tensor:
        """The key of each token, from which its features' draws follow. [b, s] int32"""
        samples, offset = self.context.sample_ids, self.context.position_offset
        if samples is None or offset is None:
            raise RuntimeError(f"{self.name}: StepKey.set was not called before the forward pass")
        if x.ndim != 3 or x.shape[0] != samples.shape[0]:
            raise RuntimeError(f"{self.name}: input {tuple(x.shape)} does not fit {samples.shape[0]} samples")
        key = _scalar_key(self.seed, self.context.step, self.name)
        samples, offset = samples.to(x.device), offset.to(x.device)
        per_sample = mix(_low(samples) ^ key)
        per_sample = mix(per_sample ^ _low(samples >> 32))  # [b]
        positions = offset.unsqueeze(1) + torch.arange(x.shape[1], device=x.device)  # [b, s]
        return mix(per_sample.unsqueeze(1) + _low(positions) * GOLDEN)


class _Drop(torch.autograd.Function):
    """Multiply by the mask; the mask is drawn again in the backward pass rather than kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keys: Tensor, p: float) -> Tensor:
        ctx.save_for_backward(keys)
        ctx.p = p
        return drop(x, keys, p)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (keys,) = ctx.saved_tensors
        return drop(grad, keys, ctx.p), None, None


def drop(x: Tensor, keys: Tensor, p: float) -> Tensor:
    """x with a share p of its elements zeroed and the others divided by 1 - p, in token chunks."""
    flat, key = x.reshape(-1, x.shape[-1]), keys.flatten()  # [tokens, f], [tokens]
    out = torch.empty_like(flat)
    rows = max(1, CHUNK_ELEMENTS // max(1, flat.shape[1]))
    for start in range(0, flat.shape[0], rows):
        part = slice(start, start + rows)
        kept = keep_mask(key[part], flat.shape[1], p)
        torch.mul(flat[part], kept, out=out[part])
    return out.mul_(1.0 / (1.0 - p)).view(x.shape)


def keep_mask(keys: Tensor, features: int, p: float) -> Tensor:
    """Which features of each token stay. [tokens] int32 -> [tokens, f] bool"""
    pairs = (features + 1) // 2
    counter = torch.arange(1, pairs + 1, dtype=torch.int32, device=keys.device) * GOLDEN
    draws = mix(keys.unsqueeze(1) + counter).view(torch.int16)  # [tokens, 2 * pairs], uniform in -32768 ... 32767
    return draws[:, :features] >= round(p * 65536) - 32768


def mix(x: Tensor) -> Tensor:
    """Hash int32 to int32 (a new tensor); products wrap, shifts are made logical by a mask."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x *= FIRST
    x ^= (x >> 15) & 0x1FFFF
    x *= SECOND
    x ^= (x >> 16) & 0xFFFF
    return x


def key_dropouts(model: nn.Module, context: StepKey, seed: int) -> int:
    """Replace each nn.Dropout that PEFT put into a `lora_dropout` table by a keyed one; return how many."""
    found = [
        (table, adapter, dropout.p, f"{name}.{adapter}")
        for name, table in model.named_modules()
        if name.endswith("lora_dropout") and isinstance(table, nn.ModuleDict)
        for adapter, dropout in table.items()
        if isinstance(dropout, nn.Dropout)
    ]
    for table, adapter, p, name in found:
        table[adapter] = KeyedDropout(p, name=name, context=context, seed=seed)
    return len(found)


def _scalar_key(seed: int, step: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed}/{step}/{name}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little", signed=True)


def _low(x: Tensor) -> Tensor:
    """The low 32 bits of int64, as int32."""
    return ((x & 0xFFFFFFFF) - ((x & 0x80000000) << 1)).to(torch.int32)
