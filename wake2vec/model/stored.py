"""Weights that are published in 4 bits by bitsandbytes: their parts, placed as they are or dequantised."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wake2vec.model.published_files import PublishedFiles
from wake2vec.model.quantise import Nf4Weight

SCALES = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
PARTS = (*SCALES, "quant_state.bitsandbytes__nf4", "quant_state.bitsandbytes__fp4")


def parts_of(name: str, names: Collection[str]) -> list[str]:
    """The tensors beside a packed weight; none for a plain one."""
    return [f"{name}.{part}" for part in PARTS if f"{name}.{part}" in names]


def without_parts(names: Collection[str]) -> list[str]:
    """The names of whole weights."""
    return [name for name in names if not any(name.endswith(f".weight.{part}") for part in PARTS)]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A weight in 4 bits as published."""

    codes: Tensor
    parts: Mapping[str, Tensor]

    def place(self, module: Any, dtype: torch.dtype, device: torch.device) -> None:
        """Into an empty 4-bit layer, its codes and scales as they came."""
        import bitsandbytes as bnb

        module.weight = bnb.nn.Params4bit.from_prequantized(
            data=self.codes, quantized_stats=dict(self.parts), requires_grad=False, device=device, module=module
        )
        module.weight.quant_state.dtype = dtype  # of what a dequantised copy is made in

    def dequantised(self) -> Tensor:
        """[out, in], in its published dtype."""
        import bitsandbytes as bnb

        state = bnb.functional.QuantState.from_dict(dict(self.parts), device=self.codes.device)
        return Nf4Weight(self.codes, state, state.dtype)()

    def stated(self) -> dict[str, Any]:
        """Scales by their names, and what the file says of them in words."""
        leaves = {name.rpartition(".")[2]: part for name, part in self.parts.items()}
        words = next(leaves.pop(name) for name in list(leaves) if name.startswith("bitsandbytes__"))
        return {**leaves, **said_in(words)}


def packed_linears(model: nn.Module, places: Mapping[str, str], names: Collection[str]) -> set[nn.Module]:
    """The layers of an empty model whose weights are packed in the files."""
    modules = dict(model.named_modules())
    return {modules[name.removesuffix(".weight")] for name, place in places.items() if parts_of(place, names)}


class Dequantised:
    """Published files whose packed weights are read as whole ones."""

    def __init__(self, files: PublishedFiles) -> None:
        self._files = files
        self._last: tuple[str, Tensor] | None = None  # a weight is read in many stretches

    def names(self) -> list[str]:
        return without_parts(self._files.names())

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._stated(name)["shape"]) if self._parts(name) else self._files.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        return getattr(torch, self._stated(name)["dtype"]) if self._parts(name) else self._files.dtype(name)

    def read(self, name: str, start: int, stop: int) -> Tensor:
        return self._weight(name)[start:stop] if self._parts(name) else self._files.read(name, start, stop)

    def _parts(self, name: str) -> list[str]:
        return parts_of(name, self._files.files)

    def _stated(self, name: str) -> dict[str, Any]:
        return said_in(self._files.whole(next(part for part in self._parts(name) if ".quant_state." in part)))

    def _weight(self, name: str) -> Tensor:
        if self._last is None or self._last[0] != name:
            parts = {part: self._files.whole(part) for part in self._parts(name)}
            self._last = name, Packed(codes=self._files.whole(name), parts=parts).dequantised()
        return self._last[1]


def said_in(words: Tensor) -> dict[str, Any]:
    """What a text that is published as a tensor says."""
    said: dict[str, Any] = json.loads(bytes(words.tolist()))
    return said


def gathered(tensors: Iterator[tuple[str, Tensor]], name: str, names: Collection[str]) -> Tensor | Packed:
    """The next weight of a stream, with its parts where it is packed."""
    found, weight = next(tensors)
    assert found == name, f"{name} was next, the stream has {found}"
    parts = dict(next(tensors) for _ in parts_of(name, names))
    return Packed(codes=weight, parts=parts) if parts else weight
