"""What a trained model consists of, tensor by tensor: published weights, new rows, merged adapters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from wake2vec.contract.errors import InputError
from wake2vec.model.outline import Outline
from wake2vec.use.shards import TensorToWrite

VALUES_AT_ONCE = 1 << 24  # 64 MiB in fp32


class PublishedTensors(Protocol):
    """The published tensors, read when they are asked for and not kept."""

    def names(self) -> list[str]:
        """In the order of the published files."""

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> torch.dtype: ...

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """Entries start to stop of the first dimension; all of a tensor without dimensions."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run adds to a published model."""

    first_new_id: int
    input_rows: Tensor  # [n_new, d] fp32
    output_rows: Tensor | None = None  # None: the same rows on both sides
    lora: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)  # module: A [r, in], B [out, r]
    scaling: float = 1.0  # alpha / r
    own: Mapping[str, Tensor] = field(default_factory=dict)  # published weights that were trained as wholes

    @property
    def vocabulary(self) -> int:
        return self.first_new_id + self.input_rows.shape[0]


@dataclass(frozen=True, kw_only=True)
class Layout:
    pieces: list[TensorToWrite]
    tied: bool  # whether the two matrices are one


def lay_out(
    base: PublishedTensors, trained: Trained, *, outline: Outline, merge: bool, dtype: torch.dtype | None
) -> Layout:
    """All tensors of the model in the order of the published files. Raises InputError where an adapter has no place.

    `dtype` None keeps each tensor's own.
    """
    if merge and (lost := sorted(module for module in trained.lora if f"{module}.weight" not in outline.places)):
        problem = f"the published model has no tensor for the adapter of {lost[0]}"
        raise InputError("export", problem, "export without merging")
    own = {outline.file_name(name): tensor for name, tensor in trained.own.items()}
    weights = _Weights(base=base, own=own)
    tied = outline.tied and trained.output_rows is None
    pieces = []
    for name in base.names():
        if name not in outline.copies:
            pieces.append(_piece(weights, trained, outline, name, merge, dtype))
    for matrix, rows in ((outline.inputs, trained.input_rows), (outline.outputs, _output_rows(trained))):
        if matrix in outline.ties and not tied:  # one matrix was both
            pieces.append(_matrix(weights, trained, outline.file_name(matrix), rows, dtype, name=matrix))
    return Layout(pieces=pieces, tied=tied)


@dataclass(frozen=True, kw_only=True)
class _Weights:
    """Published tensors, and those that were trained as wholes in their places."""

    base: PublishedTensors
    own: Mapping[str, Tensor]  # by the names of the files

    def read(self, name: str, start: int, stop: int) -> Tensor:
        own = self.own.get(name)
        return self.base.read(name, start, stop) if own is None else own[start:stop] if own.ndim else own


def _piece(
    weights: _Weights, trained: Trained, outline: Outline, name: str, merge: bool, dtype: torch.dtype | None
) -> TensorToWrite:
    if name == outline.places.get(outline.inputs):
        return _matrix(weights, trained, name, trained.input_rows, dtype)
    if name == outline.places.get(outline.outputs):
        return _matrix(weights, trained, name, _output_rows(trained), dtype)
    if name == outline.places.get(outline.outputs.removesuffix("weight") + "bias"):  # new tokens have none
        return _matrix(weights, trained, name, torch.zeros(trained.input_rows.shape[0]), dtype)
    shape, kept = weights.base.shape(name), weights.base.dtype(name)
    inside = next((own for own, place in outline.places.items() if place == name), "")
    adapter = trained.lora.get(inside.removesuffix(".weight")) if merge and inside.endswith(".weight") else None
    delta = None if adapter is None else _delta(*adapter, trained.scaling, transposed=inside in outline.transposed)
    if delta is not None and delta.shape != shape:
        problem = f"the adapter is {list(delta.shape)}, the published tensor {list(shape)}"
        raise InputError(name, problem, "export without merging")

    def values() -> Iterator[Tensor]:
        for start, stop in _stretches(shape):
            part = weights.read(name, start, stop)
            yield part if delta is None else part.float() + delta.rows(start, stop)

    return TensorToWrite(name=name, shape=shape, dtype=_target(kept, dtype), values=values)


def _matrix(
    weights: _Weights, trained: Trained, source: str, rows: Tensor, dtype: torch.dtype | None, *, name: str = ""
) -> TensorToWrite:
    """Base rows below the first new id, then the new rows; padding rows of the published matrix end with it."""
    shape = (trained.vocabulary, *weights.base.shape(source)[1:])

    def values() -> Iterator[Tensor]:
        for start, stop in _stretches((trained.first_new_id, *shape[1:])):
            yield weights.read(source, start, stop)
        for start, stop in _stretches(tuple(rows.shape)):
            yield rows[start:stop]

    return TensorToWrite(
        name=name or source, shape=shape, dtype=_target(weights.base.dtype(source), dtype), values=values
    )


@dataclass(frozen=True, kw_only=True)
class _Delta:
    """What an adapter adds to its weight: alpha / r · B A, in fp32. Hu et al. 2021, arXiv 2106.09685."""

    left: Tensor
    right: Tensor
    scaling: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.left.shape[0], self.right.shape[1]

    def rows(self, start: int, stop: int) -> Tensor:
        return self.scaling * (self.left[start:stop].float() @ self.right.float())


def _delta(a: Tensor, b: Tensor, scaling: float, *, transposed: bool) -> _Delta:
    """As the weight is published: [out, in], or [in, out]."""
    left, right = (a.t(), b.t()) if transposed else (b, a)
    return _Delta(left=left, right=right, scaling=scaling)


def _output_rows(trained: Trained) -> Tensor:
    return trained.input_rows if trained.output_rows is None else trained.output_rows


def _stretches(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """First and last entry of stretches of the first dimension, each small enough for memory."""
    count = shape[0] if shape else 1
    size = max(1, VALUES_AT_ONCE // max(1, math.prod(shape[1:])))
    for start in range(0, count, size):
        yield start, min(start + size, count)


def _target(kept: torch.dtype, asked: torch.dtype | None) -> torch.dtype:
    return asked if asked is not None and kept.is_floating_point else kept
