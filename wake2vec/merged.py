"""What a trained model consists of, tensor by tensor: published weights, new rows, merged adapters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from wake2vec.errors import InputError
from wake2vec.matrices import INPUT, OUTPUT, OUTPUT_BIAS, is_called
from wake2vec.shards import Piece

VALUES_AT_ONCE = 1 << 24  # 64 MiB in fp32


class Published(Protocol):
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
    pieces: list[Piece]
    tied: bool  # whether the two matrices are one


def lay_out(base: Published, trained: Trained, *, tied: bool, merge: bool, dtype: torch.dtype | None) -> Layout:
    """All tensors of the model in the order of the published files. Raises InputError where an adapter has no place.

    `tied`: whether the published model shares its matrices. `dtype` None keeps each tensor's own.
    """
    names = base.names()
    places = {name.removesuffix(".weight") for name in names}
    if merge and (lost := sorted(set(trained.lora) - places)):
        problem = f"the published model has no tensor for the adapter of {lost[0]}"
        raise InputError("export", problem, "export without merging")
    stays_tied = tied and trained.output_rows is None
    pieces = []
    for name in names:
        if is_called(name, OUTPUT) and stays_tied:
            continue
        pieces.append(_piece(base, trained, name, merge, dtype))
    if not stays_tied and not any(is_called(name, OUTPUT) for name in names):
        source = next(name for name in names if is_called(name, INPUT))
        pieces.append(_matrix(base, trained, source, _output_rows(trained), dtype, name="lm_head.weight"))
    return Layout(pieces=pieces, tied=stays_tied)


def _piece(base: Published, trained: Trained, name: str, merge: bool, dtype: torch.dtype | None) -> Piece:
    if is_called(name, INPUT):
        return _matrix(base, trained, name, trained.input_rows, dtype)
    if is_called(name, OUTPUT):
        return _matrix(base, trained, name, _output_rows(trained), dtype)
    if is_called(name, OUTPUT_BIAS):  # new tokens have none
        return _matrix(base, trained, name, torch.zeros(trained.input_rows.shape[0]), dtype)
    shape = base.shape(name)
    adapter = trained.lora.get(name.removesuffix(".weight")) if merge else None
    if adapter is not None and (adapter[1].shape[0], adapter[0].shape[1]) != shape:
        problem = f"the adapter is [{adapter[1].shape[0]}, {adapter[0].shape[1]}], the published tensor {list(shape)}"
        raise InputError(name, problem, "export without merging")

    def values() -> Iterator[Tensor]:
        for start, stop in _stretches(shape):
            part = _published(base, trained, name, start, stop)
            yield part if adapter is None else _merge(part, *adapter, trained.scaling, start, stop)

    kept = base.dtype(name)
    return Piece(name=name, shape=shape, dtype=_target(kept, dtype), values=values)


def _matrix(
    base: Published, trained: Trained, source: str, rows: Tensor, dtype: torch.dtype | None, *, name: str = ""
) -> Piece:
    """Base rows below the first new id, then the new rows; padding rows of the published matrix end with it."""
    shape = (trained.vocabulary, *base.shape(source)[1:])

    def values() -> Iterator[Tensor]:
        for start, stop in _stretches((trained.first_new_id, *shape[1:])):
            yield _published(base, trained, source, start, stop)
        for start, stop in _stretches(tuple(rows.shape)):
            yield rows[start:stop]

    return Piece(name=name or source, shape=shape, dtype=_target(base.dtype(source), dtype), values=values)


def _published(base: Published, trained: Trained, name: str, start: int, stop: int) -> Tensor:
    own = trained.own.get(name)
    return base.read(name, start, stop) if own is None else own[start:stop] if own.ndim else own


def _merge(part: Tensor, a: Tensor, b: Tensor, scaling: float, start: int, stop: int) -> Tensor:
    """W + alpha / r · B A, in fp32. Hu et al. 2021, arXiv 2106.09685. [stop - start, in]"""
    return part.float() + scaling * (b[start:stop].float() @ a.float())


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
