"""The ledger of a run on disk: one JSON object a line, rewritten from the checkpoint at a resume, then appended to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wake2vec.contract.files import make_directory, write_atomic


class LedgerFile:
    """Not fsynced line by line: a checkpoint holds every row up to its step, and later rows are made again.

    It is rewritten when the run is complete, since nobody makes rows again after that.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def rewrite(self, rows: Iterable[dict[str, Any]]) -> None:
        write_atomic(self._path, "".join(_line(row) for row in rows).encode())

    def append(self, row: dict[str, Any]) -> None:
        make_directory(self._path.parent)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(_line(row))


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
