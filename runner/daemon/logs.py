"""The runner's own log: one JSON object a line, with job, attempt and step where a line is about one; and its bugs."""

from __future__ import annotations

import itertools
import json
import os
import platform
import re
import tempfile
import time
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from runner.children import QUEUE_VARIABLE, STORE_VARIABLE
from runner.discretion import hide
from runner.errors import RunnerError
from runner.settings import read_settings

MOST_BYTES = 8 << 20
ABOUT = re.compile(r"^(?:\d\d:\d\d:\d\d )?(?P<job>[A-Za-z0-9][\w.-]*)(?: #(?P<attempt>\d+))?: ")
STEP = re.compile(r"\bstep (\d+)")
PACKAGES = ("wake2vec-runner", "torch", "transformers", "sqlalchemy", "typer", "rich", "pydantic", "pydrive2")


def append(place: Path, line: dict[str, Any]) -> bool:
    """Add a line; the file is set aside as `.1` when it is long. False where it cannot be written."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists() and place.stat().st_size > MOST_BYTES:
            os.replace(place, place.with_name(f"{place.name}.1"))
        with open(place, "a", encoding="utf-8", errors="replace") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    except (OSError, ValueError):
        return False
    return True


def line_of(text: str, now: float) -> dict[str, Any]:
    """What was said on the screen, with what it is about."""
    about, step = ABOUT.match(text), STEP.search(text)
    return {
        "at": now,
        "level": "error" if text.startswith(("error:", "trouble:")) else "info",
        "job": about["job"] if about and not text.startswith(("error:", "trouble:", "notifications:")) else None,
        "attempt": int(about["attempt"]) if about and about["attempt"] else None,
        "step": int(step[1]) if step else None,
        "text": text,
    }


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
    queue = os.environ.get(QUEUE_VARIABLE, "")
    return {
        "at": time.time(),
        "level": "bug",
        "command": [hide(word) for word in words],
        "text": hide(hide(f"{type(error).__name__}: {error}", address), queue),
        "traceback": hide(hide("".join(traceback.format_exception(error)), address), queue),
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
