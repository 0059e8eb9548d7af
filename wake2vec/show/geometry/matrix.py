"""Rows of a large matrix, read a few thousand at a time: from a safetensors file, or from memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wake2vec.contract.errors import InputError
from wake2vec.contract.models.weight_files import read_header

Array = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
ROWS_AT_ONCE = 4096
_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}


class Matrix(Protocol):
    """Rows `[n, d]` that come in fp32."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def read(self, start: int, stop: int) -> Array:
        """Rows start to stop. [stop - start, d]"""

    def take(self, places: Places) -> Array:
        """These rows, in this order. [places, d]"""


def chunks(matrix: Matrix, size: int = ROWS_AT_ONCE) -> Iterator[tuple[int, Array]]:
    """(first row, rows) until the end."""
    for start in range(0, matrix.shape[0], size):
        yield start, matrix.read(start, min(start + size, matrix.shape[0]))


@dataclass(frozen=True)
class InMemory:
    """A numpy array or a torch tensor, on whatever device."""

    values: Any

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.values.shape[0]), int(self.values.shape[1])

    def read(self, start: int, stop: int) -> Array:
        return _fp32(self.values[start:stop])

    def take(self, places: Places) -> Array:
        return _fp32(self.values[places.tolist()])


@dataclass(frozen=True)
class Part:
    """The first rows of a matrix: those that are in use."""

    whole: Matrix
    rows: int

    @property
    def shape(self) -> tuple[int, int]:
        return min(self.rows, self.whole.shape[0]), self.whole.shape[1]

    def read(self, start: int, stop: int) -> Array:
        return self.whole.read(start, min(stop, self.rows))

    def take(self, places: Places) -> Array:
        return self.whole.take(places)


@dataclass(frozen=True, kw_only=True)
class InFile:
    """A matrix in a safetensors file, read with plain file reads: a mapping would count against the memory."""

    path: Path
    offset: int  # of the first byte, in the file
    dtype: str
    shape: tuple[int, int]

    def read(self, start: int, stop: int) -> Array:
        count, d = max(0, stop - start), self.shape[1]
        kind = np.dtype(_DTYPES[self.dtype])
        with open(self.path, "rb") as file:
            file.seek(self.offset + start * d * kind.itemsize)
            flat = np.fromfile(file, dtype=kind, count=count * d)
        if flat.size != count * d:
            raise InputError(self.path, "ends before its tensor does", "download or copy it again")
        return _widen(flat, self.dtype).reshape(count, d)

    def take(self, places: Places) -> Array:
        rows = np.empty((len(places), self.shape[1]), dtype=np.float32)
        for place, row in enumerate(places):
            rows[place] = self.read(int(row), int(row) + 1)[0]
        return rows


def matrices_in(path: Path) -> dict[str, InFile]:
    """The matrices of a safetensors file, unread. Raises InputError when it is not one."""
    found = {}
    for name, one in read_header(path).items():
        if len(one.shape) == 2 and one.dtype in _DTYPES:
            rows, d = one.shape
            if one.size != rows * d * np.dtype(_DTYPES[one.dtype]).itemsize:
                raise InputError(path, f"{name} is cut short", "download or copy it again")
            found[name] = InFile(path=path, offset=one.offset, dtype=one.dtype, shape=(rows, d))
    return found


def even_choice(rows: int, most: int) -> Places:
    """At most `most` rows, spread evenly over all: the same ones every time."""
    count = min(rows, most)
    return np.floor(np.arange(count, dtype=np.float64) * rows / max(count, 1)).astype(np.int64)


def _widen(flat: npt.NDArray[Any], dtype: str) -> Array:
    if dtype == "BF16":  # the upper half of an fp32
        return (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.astype(np.float32, copy=False)


def _fp32(values: Any) -> Array:
    if isinstance(values, np.ndarray):
        return values.astype(np.float32)
    found: Array = values.detach().cpu().float().numpy()  # widened here: a card may have no room
    return found


def unit(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rows of length 1; a row of zeros stays one."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(length, math.ulp(0.0) if rows.dtype == np.float64 else np.finfo(np.float32).tiny)
