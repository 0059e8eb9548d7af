"""Names and ids of a store as paths: how one becomes fresh, and why none leaves its directory."""

from __future__ import annotations

import re
from pathlib import Path

_PART = re.compile(r"[^/\\\x00-\x1f]{1,200}")


def log_name(job: str) -> str:
    """Of a job's log, which is the folder of all that the job stores too."""
    return f"jobs/{job}"


def fresh_id(name: str, fresh: str) -> str:
    """`jobs/a/checkpoint-200.*/state.json` with the fresh part in place of its one star."""
    if name.count("*") != 1:
        raise ValueError(f"{name!r}: the name of a new object has exactly one star")
    return checked(name.replace("*", fresh))


def shown(name: str) -> str:
    """The name without its star, for stores that do not address by path."""
    return checked(name.replace(".*", "").replace("*", ""))


def checked(name: str) -> str:
    """The name itself when it is a plain relative path; raises ValueError when it could lead elsewhere."""
    for part in name.split("/"):
        if not _PART.fullmatch(part) or part.startswith("."):
            raise ValueError(f"{name!r}: not a name inside a store")
    return name


def safe_path(root: Path, id: str) -> Path:
    return root.joinpath(*checked(id).split("/"))
