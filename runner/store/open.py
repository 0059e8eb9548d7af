"""Turn the text of `--store` into a store."""

from __future__ import annotations

from pathlib import Path

from runner.errors import RunnerError
from runner.store.base import Store
from runner.store.directory import DirectoryStore
from runner.store.retry import RetryingStore


def open_store(url: str, home: Path) -> Store:
    """`dir:PATH`, `drive:FOLDER` or `fs:URL`. Nothing is read or written yet; credentials and journals are in `home`."""
    scheme, _, rest = url.partition(":")
    if scheme not in _KINDS or not rest:
        raise RunnerError(f"--store {url!r}: not a store; use dir:PATH, drive:FOLDER or fs:URL")
    return RetryingStore(_KINDS[scheme](rest, home))


def _directory(rest: str, home: Path) -> Store:
    return DirectoryStore(Path(rest).expanduser().absolute())


_KINDS = {"dir": _directory}
