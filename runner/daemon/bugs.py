"""Write down a bug so that it can be reported: the traceback and the versions, into the home's log."""

from __future__ import annotations

import itertools
import os
import platform
import tempfile
import time
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from runner.children import STORE_VARIABLE
from runner.daemon.logfile import append
from runner.discretion import hide
from runner.errors import RunnerError
from runner.settings import read_settings

PACKAGES = ("wake2vec-runner", "torch", "transformers", "sqlalchemy", "typer", "rich", "pydantic", "pydrive2")


def write_bug(error: Exception, words: Sequence[str]) -> Path:
    """Append it to the home's runner.log, or to a file in the temporary folder; returns which."""
    line = describe(error, words)
    for place in (_home_log(words), Path(tempfile.gettempdir()) / "wake2vec-runner-bug.log"):
        if place is not None and append(place, line):
            return place
    return Path("nowhere: no place could be written")


def describe(error: BaseException, words: Sequence[str]) -> dict[str, Any]:
    """Everything that a report needs, as one JSON object; a password in the store's address stays out of it."""
    address = next((word for word in words if "://" in word), os.environ.get(STORE_VARIABLE, ""))
    return {
        "at": time.time(),
        "level": "bug",
        "command": [hide(word) for word in words],
        "text": hide(f"{type(error).__name__}: {error}", address),
        "traceback": hide("".join(traceback.format_exception(error)), address),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _home_log(words: Sequence[str]) -> Path | None:
    pairs = [*itertools.pairwise(words), *(tuple(word.split("=", 1)) for word in words if word.startswith("--home="))]
    home = next((Path(value) for option, value in pairs if option == "--home"), None)
    try:
        return read_settings(home, None).daemon_log
    except (RunnerError, OSError, ValueError):
        return None


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
