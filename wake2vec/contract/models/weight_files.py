"""safetensors files: what a model calls them and its matrices, and what their headers say. No tensor is read here."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wake2vec.contract.errors import ModelError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
ADAPTER_FILE, ROWS_FILE, START_FILE = "adapter_model.safetensors", "embed_tokens.safetensors", "start.safetensors"
START_ABOUT = "wake2vec"  # where the header of START_FILE tells what `import` took of an old run
# of the input and the output matrix; the first that is there counts
INPUT = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")
OUTPUT = ("lm_head.weight", "embed_out.weight", "output.weight")
MOST_HEADER_BYTES = 100 << 20  # the format's own limit
_AGAIN = "download or copy it again"


@dataclass(frozen=True, kw_only=True)
class TensorInFile:
    dtype: str  # as the format has it: F32, BF16
    shape: tuple[int, ...]
    offset: int  # of its first byte, in the file
    size: int


def is_called(name: str, endings: tuple[str, ...]) -> bool:
    """Whether a tensor's full name, such as `model.embed_tokens.weight`, is one of these."""
    return any(name == ending or name.endswith(f".{ending}") for ending in endings)


def read_header(path: Path) -> dict[str, TensorInFile]:
    """Every tensor, in the header's order. Raises ModelError where the file is not whole."""
    return _read(path)[0]


def read_metadata(path: Path) -> dict[str, str]:
    """What whoever wrote the file says of it. Raises ModelError where the file is not whole."""
    return _read(path)[1]


def _read(path: Path) -> tuple[dict[str, TensorInFile], dict[str, str]]:
    body = header_bytes(path)
    try:
        table = json.loads(body)
        about = dict(table.pop("__metadata__", {}))
        found = {name: _entry(entry, first=8 + len(body)) for name, entry in table.items()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(path, "torn: its header is no table of tensors", _AGAIN) from error
    if max((one.offset + one.size for one in found.values()), default=0) > path.stat().st_size:
        raise ModelError(path, "cut short: it is shorter than its header says", _AGAIN)
    return found, about


def _entry(table: dict[str, Any], *, first: int) -> TensorInFile:
    begin, end = table["data_offsets"]
    shape = tuple(int(side) for side in table["shape"])
    return TensorInFile(dtype=str(table["dtype"]), shape=shape, offset=first + begin, size=end - begin)


def header_bytes(path: Path) -> bytes:
    """As they stand in the file. Raises ModelError where they are not whole."""
    try:
        with open(path, "rb") as file:
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            body = file.read(length) if 2 <= length <= MOST_HEADER_BYTES else b""
    except OSError as error:
        raise ModelError(path, f"cannot be read: {error.strerror}", _AGAIN) from error
    if length == 0 or len(body) != length:
        pointer = " (a git-lfs pointer: `git lfs pull` fetches the file)" if head == b"version " else ""
        raise ModelError(path, f"torn: its header is not whole{pointer}", _AGAIN)
    return body
