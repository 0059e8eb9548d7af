"""Turn the text of `--store` into a store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.errors import RunnerError
from runner.store.base import Store
from runner.store.directory import DirectoryStore
from runner.store.retry import RetryingStore


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a store may need beside its address."""

    home: Path  # credentials and journals of transfers
    environ: Mapping[str, str]
    bandwidth_mib_per_second: float | None


def open_store(
    url: str,
    home: Path,
    *,
    environ: Mapping[str, str] = os.environ,
    bandwidth_mib_per_second: float | None = None,
) -> Store:
    """`dir:PATH`, `drive:FOLDER` or `fs:URL`. Nothing is read, written or asked before the store is first used."""
    scheme, _, rest = url.partition(":")
    if scheme not in KINDS or not rest:
        raise RunnerError(f"--store {url!r}: not a store; use dir:PATH, drive:FOLDER or fs:URL")
    setting = Setting(home=home, environ=environ, bandwidth_mib_per_second=bandwidth_mib_per_second)
    return RetryingStore(KINDS[scheme](rest, setting))


def _directory(rest: str, setting: Setting) -> Store:
    return DirectoryStore(Path(rest).expanduser().absolute())


def _drive(rest: str, setting: Setting) -> Store:
    from runner.store.drive import open_drive
    from runner.store.drive_transfer import Throttle

    mib = setting.bandwidth_mib_per_second
    throttle = Throttle(bytes_per_second=None if mib is None else mib * (1 << 20))
    return open_drive(rest, setting.home, setting.environ, throttle)


def _fs(rest: str, setting: Setting) -> Store:
    from runner.store.fs import open_fs

    return open_fs(rest)


KINDS = {"dir": _directory, "drive": _drive, "fs": _fs}  # a new store is a function and a line here
