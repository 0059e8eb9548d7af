"""The text that a job's trainers print: one file, a line before each attempt, set aside when it is long."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 8 << 20
MARK = re.compile(r"^== attempt (\d+), ")


def open_log(path: Path, attempt: int, now: float) -> BinaryIO:
    """Open for a trainer to append to, below a line that names the attempt."""
    if path.exists() and path.stat().st_size > MOST_BYTES:
        os.replace(path, path.with_name(f"{path.name}.1"))
    file = open(path, "ab")  # noqa: SIM115  the trainer outlives us; the caller closes its copy
    file.write(f"== attempt {attempt}, {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))}\n".encode())
    file.flush()
    return file


def read_log(path: Path) -> Iterator[tuple[int | None, str]]:
    """(attempt, line) of everything printed, the set-aside part first; None before the first mark."""
    attempt: int | None = None
    for part in (path.with_name(f"{path.name}.1"), path):
        if not part.is_file():
            continue
        with open(part, encoding="utf-8", errors="replace", newline="\n") as file:
            for line in file:
                if mark := MARK.match(line):
                    attempt = int(mark[1])
                elif line.strip():
                    yield attempt, _last_state(line)


def _last_state(line: str) -> str:
    """A progress bar draws over its own line; what it showed last is what it said."""
    return line.rstrip().rsplit("\r", 1)[-1]
