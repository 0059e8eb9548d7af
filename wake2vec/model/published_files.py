"""The safetensors files of a published model: which tensor lies where, read a stretch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wake2vec.contract.errors import ModelError
from wake2vec.contract.files import read_json
from wake2vec.contract.models.weight_files import INDEX, SINGLE
from wake2vec.contract.tables import ModelTable

ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model is published: a folder, or an id on the hub at a revision."""

    path: str
    revision: str = "main"
    trust_remote_code: bool = False

    def file(self, name: str) -> Path | None:
        """One file of the model on the local disk, fetched when needed; None when the model has no such file."""
        folder = Path(self.path)
        if folder.is_dir():
            return folder / name if (folder / name).is_file() else None
        from transformers.utils.hub import cached_file

        found = cached_file(self.path, name, revision=self.revision, _raise_exceptions_for_missing_entries=False)
        return None if found is None else Path(found)

    def index(self) -> dict[str, str] | None:
        """Tensor name to file, of a model in several files. Raises ModelError where it is torn."""
        path = self.file(INDEX)
        if path is None:
            return None
        table = read_json(path)
        found: dict[str, str] | None = table.get("weight_map") if isinstance(table, dict) else None
        if not isinstance(found, dict):
            raise ModelError(path, "is no index of tensors", "download the model again")
        return found


def origin_of(table: ModelTable) -> Origin:
    return Origin(path=table.base, revision=table.revision, trust_remote_code=table.trust_remote_code)


class PublishedFiles:
    """Each read opens its file anew and maps no more than it needs. Raises ModelError where there are none."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.files = self._files()

    def _files(self) -> dict[str, str]:
        """Tensor name to file. A pickle is never read."""
        if (index := self.origin.index()) is not None:
            return index
        if self.origin.file(SINGLE) is None:
            remedy = "use a model that is published as safetensors"
            raise ModelError(self.origin.path, "has no safetensors files", remedy)
        with self.open(SINGLE) as tensors:
            return dict.fromkeys(tensors.keys(), SINGLE)

    def names(self) -> list[str]:
        return sorted(self.files, key=lambda name: self.files[name])

    def shape(self, name: str) -> tuple[int, ...]:
        with self.open(self.files[name]) as tensors:
            return tuple(tensors.get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        with self.open(self.files[name]) as tensors:
            part = tensors.get_slice(name)
            return part[:0].dtype if part.get_shape() else tensors.get_tensor(name).dtype

    def read(self, name: str, start: int, stop: int) -> Tensor:
        with self.open(self.files[name]) as tensors:
            part = tensors.get_slice(name)
            found: Tensor = part[start:stop].clone() if part.get_shape() else tensors.get_tensor(name)
            return found

    def whole(self, name: str) -> Tensor:
        with self.open(self.files[name]) as tensors:
            found: Tensor = tensors.get_tensor(name)
            return found

    def same(self, left: str, right: str) -> bool:
        """Whether two tensors have the same values, read a few rows at a time and no further than they agree."""
        shape = self.shape(left)
        if shape != self.shape(right):
            return False
        stretches = ((start, start + ROWS_AT_ONCE) for start in range(0, shape[0], ROWS_AT_ONCE))
        return all(torch.equal(self.read(left, *part).float(), self.read(right, *part).float()) for part in stretches)

    def path(self, file: str) -> Path:
        if (path := self.origin.file(file)) is None:
            raise ModelError(self.origin.path, f"{file} is missing", "download the model again")
        return path

    @contextmanager
    def open(self, file: str) -> Iterator[Any]:
        from safetensors import SafetensorError, safe_open

        path = self.path(file)
        try:
            with safe_open(path, framework="pt") as tensors:
                yield tensors
        except SafetensorError as exc:
            raise ModelError(path, f"cannot be read ({exc})", "download the model again") from exc
