"""Write a model's safetensors files piece by piece, so that memory holds a few rows of one tensor at a time."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wake2vec.contract.files import write_json
from wake2vec.contract.models.weight_files import INDEX, SINGLE

SHARD_BYTES = 4 << 30
NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True, kw_only=True)
class TensorToWrite:
    """One tensor to be: its values come in order, as flat or whole stretches that add up to its shape."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    values: Callable[[], Iterator[Tensor]]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def plan_shards(pieces: Sequence[TensorToWrite], most: int = SHARD_BYTES) -> list[list[TensorToWrite]]:
    """Pieces in their order, a new file wherever the next one would go beyond `most` bytes."""
    shards: list[list[TensorToWrite]] = [[]]
    for piece in pieces:
        if shards[-1] and sum(held.size for held in shards[-1]) + piece.size > most:
            shards.append([])
        shards[-1].append(piece)
    return shards


def write_model(
    folder: Path,
    pieces: Sequence[TensorToWrite],
    *,
    most: int = SHARD_BYTES,
    progress: Callable[[int, int], None] = lambda done, whole: None,
) -> None:
    """One file, or several and their index, as transformers names them. `progress`: bytes written, bytes in all."""
    shards, done, whole = plan_shards(pieces, most), 0, sum(piece.size for piece in pieces)
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        one = len(shards) == 1
        name = SINGLE if one else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        for written in _write_shard(folder / name, shard):
            done += written
            progress(done, whole)
        places |= dict.fromkeys((piece.name for piece in shard), name)
    if len(shards) > 1:
        write_json(folder / INDEX, {"metadata": {"total_size": whole}, "weight_map": places})


def _write_shard(path: Path, pieces: Sequence[TensorToWrite]) -> Iterator[int]:
    """Bytes of each stretch as it is on its way to the disk. Raises ValueError where a piece is not what it said."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for piece in pieces:
        header[piece.name] = {
            "dtype": NAMES[piece.dtype],
            "shape": list(piece.shape),
            "data_offsets": [end, end + piece.size],
        }
        end += piece.size
    body = json.dumps(header, separators=(",", ":")).encode()
    body += b" " * (-len(body) % 8)  # the data begins at a multiple of 8
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(body)) + body)
        for piece in pieces:
            size = 0
            for values in piece.values():
                flat = values.to(piece.dtype).contiguous().reshape(-1)
                flat.view(torch.uint8).numpy().tofile(file)
                size += flat.numel() * piece.dtype.itemsize
                yield flat.numel() * piece.dtype.itemsize
            if size != piece.size:
                raise ValueError(f"{piece.name} gave {size} bytes, expected {piece.size}")
        file.flush()
        os.fsync(file.fileno())
