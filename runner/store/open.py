"""Turn the text of `--store` into a store."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.discretion import hide
from runner.errors import RunnerError, StoreUnavailable
from runner.store.base import Store
from runner.store.places.directory import DirectoryStore
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
    """`dir:PATH`, `drive:FOLDER`, `hub:USER/REPO` or `fs:URL`. Nothing is read or written before it is first used."""
    scheme, rest = check_url(url)
    setting = Setting(home=home, environ=environ, bandwidth_mib_per_second=bandwidth_mib_per_second)
    return RetryingStore(KINDS[scheme](rest, setting))


def check_url(url: str) -> tuple[str, str]:
    """Its kind, and what follows. Raises RunnerError for a text that can be no store."""
    scheme, _, rest = url.partition(":")
    if scheme not in KINDS or not rest.strip():
        meant = f"did you mean {hide(nearest)}?" if (nearest := meant_by(url)) else FORMS
        raise RunnerError(f"--store {hide(url)!r}: not a store; {meant}")
    if "\0" in rest:
        raise RunnerError(f"--store {hide(url)!r}: holds a NUL character, which no address can")
    return scheme, rest


def meant_by(url: str) -> str:
    """The store that a text nearly names, empty where it names none."""
    scheme, _, rest = url.strip().partition(":")
    if re.match(r"[\w+.-]+(::[\w+.-]+)*://", url) and scheme.lower() not in KINDS:
        return f"fs:{url}"
    if url.startswith(("/", "./", "../", "~")) or re.match(r"[A-Za-z]:[\\/]", url):
        return f"dir:{url}"
    kind = ALIASES.get(scheme.lower()) or next(iter(difflib.get_close_matches(scheme.lower(), KINDS, n=1)), "")
    return f"{kind}:{rest.lstrip('/') if kind == 'drive' else rest}" if kind and rest.strip() else ""


def _directory(rest: str, setting: Setting) -> Store:
    path = Path(rest).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise StoreUnavailable(f"--store dir:{rest}: is a file; name a folder")
    return DirectoryStore(path)


def _drive(rest: str, setting: Setting) -> Store:
    from runner.store.drive.store import open_drive
    from runner.store.drive.transfer import Throttle

    mib = setting.bandwidth_mib_per_second
    throttle = Throttle(bytes_per_second=None if mib is None else mib * (1 << 20))
    try:
        return open_drive(rest, setting.home, setting.environ, throttle)
    except ValueError:
        raise RunnerError(
            f"--store drive:{rest}: cannot be the name of a folder; use plain letters and digits"
        ) from None


def _fs(rest: str, setting: Setting) -> Store:
    from runner.store.places.fsspec import open_fs

    if rest.partition("://")[0].rpartition("::")[2].lower() in NO_STORE:
        raise RunnerError(f"--store fs:{hide(rest)}: nothing can be kept there; {FORMS}")
    return open_fs(rest)


def _hub(rest: str, setting: Setting) -> Store:
    from runner.store.hub.store import open_hub

    return open_hub(rest, setting.environ)


NO_STORE = {"memory", "http", "https", "data"}  # gone with the process, or only for reading
FORMS = "use dir:PATH, drive:FOLDER, hub:USER/REPO or fs:URL"
ALIASES = {
    "gdrive": "drive", "google": "drive", "googledrive": "drive", "file": "dir", "folder": "dir", "local": "dir",
    "hf": "hub", "huggingface": "hub",
}  # fmt: skip
KINDS = {"dir": _directory, "drive": _drive, "hub": _hub, "fs": _fs}  # a new store is a function and a line here
