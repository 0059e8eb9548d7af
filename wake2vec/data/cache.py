"""Tokenised text on disk, through `datasets`: made once for a text and a tokenizer, then mapped, never read whole."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wake2vec.data.blocks import Tokens
from wake2vec.data.permutation import Ints
from wake2vec.data.tokens import Stream

# Rows of the table held in memory while it is written; a row is one span of text.
_ROWS_AT_ONCE = 16


class TokenTable:
    """The token spans of a text, in order: training spans, and held-out spans with the bytes of each token."""

    def __init__(self, table: Any) -> None:
        self._table = table.with_format("arrow")

    def training(self) -> Stream:
        """The training tokens as one stream that lies on disk."""
        column = self._table.data.column("training")
        return Stream([chunk.flatten().to_numpy() for chunk in column.chunks])

    def held_out(self) -> Iterator[Tokens]:
        """The held-out spans, one at a time."""
        for row in range(len(self._table)):
            ids = self._row("held_out", row)
            if len(ids):
                yield Tokens(ids=ids, byte_ends=self._row("byte_ends", row))

    def _row(self, name: str, row: int) -> Any:
        return self._table.data.column(name)[row].values.to_numpy()


def token_table(key: str, spans: Iterable[tuple[bool, Tokens]], folder: Path) -> TokenTable:
    """The table `key` of a cache folder; `spans` (held out or not, tokens) are only asked for when it is not there."""
    from datasets import load_from_disk

    target = folder / key
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=folder) as scratch:
            _write(key, spans, Path(scratch))
            for path in (Path(scratch) / "table").iterdir():
                _sync(path)  # after a power cut the name must not stand for empty pages
            try:
                (Path(scratch) / "table").rename(target)
            except OSError:
                if not target.exists():  # else another process was first
                    raise
    return TokenTable(load_from_disk(str(target)))


def key_of(**parts: object) -> str:
    """The name of what is made from `parts` and nothing else."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def mapped(path: Path, stacks: Callable[[], Iterator[Ints]]) -> Any:
    """Stacks `[k, any, length]` put together along their middle as one .npy file, and mapped from there.

    They are asked for twice, to count and to write, and only where the file is missing; one is in memory at a time.
    """
    if not path.exists():
        shapes = [stack.shape for stack in stacks()]
        (k, length), count = (shapes[0][0], shapes[0][2]), sum(shape[1] for shape in shapes)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            header = {"descr": "<i8", "fortran_order": False, "shape": (k, count, length)}
            np.lib.format.write_array_header_1_0(file, header)
            start, done = file.tell(), 0
            for stack in stacks():
                for field, values in enumerate(stack):
                    file.seek(start + 8 * length * (field * count + done))
                    file.write(np.ascontiguousarray(values, dtype="<i8").tobytes())
                done += stack.shape[1]
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
    return np.load(path, mmap_mode="r")


def _write(key: str, spans: Iterable[tuple[bool, Tokens]], folder: Path) -> None:
    import datasets

    logging.getLogger("datasets").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    integers = {"training": "int32", "held_out": "int32", "byte_ends": "int64"}
    features = datasets.Features({name: datasets.List(datasets.Value(kind)) for name, kind in integers.items()})
    table = datasets.Dataset.from_generator(
        _Rows(key, spans),
        features=features,
        cache_dir=str(folder / "build"),
        writer_batch_size=_ROWS_AT_ONCE,
    )
    table.save_to_disk(str(folder / "table"))


class _Rows:
    """The rows for `from_generator`, which pickles what makes them to have a name for it: the key will do.

    Only newer versions of `datasets` can be told the name.
    """

    def __init__(self, key: str, spans: Iterable[tuple[bool, Tokens]]) -> None:
        self._key, self._spans = key, spans

    def __call__(self) -> Iterator[dict[str, Any]]:
        return map(_as_row, self._spans)

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (self._key,)


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _as_row(span: tuple[bool, Tokens]) -> dict[str, Any]:
    held_out, tokens = span
    nothing = np.zeros(0, dtype=np.int32)
    if held_out:
        return {"training": nothing, "held_out": tokens.ids, "byte_ends": tokens.byte_ends}
    return {"training": tokens.ids, "held_out": nothing, "byte_ends": nothing}
