"""Dropout whose mask is a pure function of (seed, step, module, sample, position, feature).

The mask does not depend on the micro-batch, on how often a layer is recomputed, or on a block being split in two, and
needs no random state in a checkpoint. A 32-bit integer hash per two features gives two 16-bit draws, so the rate is
exact to 1/65536.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from wake2vec.model.layers.kernels import draws, mix

GOLDEN = 0x9E3779B9 - (1 << 32)


class StepKey:
    """Where the loop says which samples are in the model now. One object is shared by every KeyedDropout.

    Set it before each forward pass and leave it until after the backward pass, which may recompute layers.
    """

    def __init__(self) -> None:
        self.step = 0
        self._samples: Tensor | None = None  # [b] int64
        self._offset: Tensor | None = None  # [b] int64
        self._keys: dict[tuple[int, torch.device], Tensor] = {}

    def set(self, *, step: int, sample_ids: Tensor, position_offset: Tensor | None = None) -> None:
        """Samples are numbered for the whole job; an offset is where in its block a sample's first token stands."""
        self.step = step
        self._samples = sample_ids
        self._offset = torch.zeros_like(sample_ids) if position_offset is None else position_offset
        self._keys.clear()

    def length_of(self, rows: int, device: torch.device) -> int | None:
        """The length of the samples, where so many rows are all their tokens in a row; known since their attention."""
        length = 0 if self._samples is None else rows // self._samples.shape[0]
        whole = self._samples is not None and length * self._samples.shape[0] == rows
        return length if whole and (length, device) in self._keys else None

    def token_keys(self, batch: int, length: int, device: torch.device) -> Tensor:
        """A hash of sample and position for each token, the same for all modules. [b * s] int32"""
        if self._samples is None or self._offset is None:
            raise RuntimeError("StepKey.set was not called before the forward pass")
        if batch != self._samples.shape[0]:
            raise RuntimeError(f"the input has {batch} samples, but StepKey.set was told {self._samples.shape[0]}")
        if (length, device) not in self._keys:
            samples, offset = self._samples.to(device), self._offset.to(device)
            per_sample = mix(mix(_low(samples)) ^ _low(samples >> 32))  # [b]
            positions = offset.unsqueeze(1) + torch.arange(length, device=device)  # [b, s]
            self._keys[length, device] = mix(per_sample.unsqueeze(1) + _low(positions) * GOLDEN).flatten()
        return self._keys[length, device]


class KeyedDropout(nn.Module):
    """Inverted dropout at rate p with a keyed mask; the identity in eval mode or at p = 0."""

    def __init__(self, p: float, *, name: str, context: StepKey, seed: int) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout rate {p} is not in [0, 1)")
        self.p, self.name, self.context, self.seed = p, name, context, seed
        self._salt: tuple[int, int] | None = None  # of a step, and the step

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, f] -> [b, s, f]; [b * s, f], as OPT flattens its tokens, likewise."""
        if not self.training or self.p == 0.0:
            return x
        if x.ndim == 2 and (length := self.context.length_of(x.shape[0], x.device)):
            return self.forward(x.reshape(-1, length, x.shape[1])).flatten(0, 1)
        if x.ndim != 3:
            raise RuntimeError(f"{self.name}: expected [b, s, f], got {tuple(x.shape)}")
        keys = self.context.token_keys(x.shape[0], x.shape[1], x.device)
        return _Drop.apply(x, keys, self.salt(), self.p)  # type: ignore[no-untyped-call]

    def salt(self) -> int:
        """What tells this module and step from others. A signed 32-bit number"""
        step = self.context.step
        if self._salt is None or self._salt[1] != step:
            self._salt = salt_of(self.seed, step, self.name), step
        return self._salt[0]


class _Drop(torch.autograd.Function):
    """Multiply by the mask; the mask is drawn again in the backward pass rather than kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keys: Tensor, salt: int, p: float) -> Tensor:
        ctx.save_for_backward(keys)
        ctx.salt, ctx.p = salt, p
        return drop(x, keys, salt, p)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (keys,) = ctx.saved_tensors
        return drop(grad, keys, ctx.salt, ctx.p), None, None, None


def drop(x: Tensor, keys: Tensor, salt: int, p: float) -> Tensor:
    """x with a share p of its elements zeroed and the others divided by 1 - p. [..., f], keys [tokens]"""
    mask = keep_mask(keys, x.shape[-1], salt, p).view(x.shape)
    return (x * mask).mul_(1.0 / (1.0 - p))


def keep_mask(keys: Tensor, features: int, salt: int, p: float) -> Tensor:
    """Which features of each token stay. [tokens] int32 -> [tokens, f] bool"""
    return sixteen_bits(keys, features, salt) >= round(p * 65536) - 32768


def sixteen_bits(keys: Tensor, features: int, salt: int) -> Tensor:
    """Uniform over all of int16, for each key and feature. [t] int32 -> [t, f]"""
    return draws(keys, _counters((features + 1) // 2, keys.device), salt).view(torch.int16)[:, :features]


def salt_of(seed: int, step: int, name: str) -> int:
    """A signed 32-bit number."""
    digest = hashlib.blake2b(f"{seed}/{step}/{name}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little", signed=True)


@functools.cache
def _counters(pairs: int, device: torch.device) -> Tensor:
    """One odd-stepped number for each pair of features. [pairs] int32"""
    return torch.arange(1, pairs + 1, dtype=torch.int32, device=device) * GOLDEN


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


def drop_only_keyed(model: nn.Module) -> None:
    """Adapters drop from now on, and nothing else: what a published body drops by itself, no resume could repeat."""
    model.eval()
    for module in model.modules():
        if isinstance(module, KeyedDropout):
            module.train()


def _low(x: Tensor) -> Tensor:
    """The low 32 bits of int64, as int32."""
    return ((x & 0xFFFFFFFF) - ((x & 0x80000000) << 1)).to(torch.int32)
