"""The runner's own log: one JSON object a line, with job, attempt and step where a line is about one."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

MOST_BYTES = 8 << 20
ABOUT = re.compile(r"^(?:\d\d:\d\d:\d\d )?(?P<job>[A-Za-z0-9][\w.-]*)(?: #(?P<attempt>\d+))?: ")
STEP = re.compile(r"\bstep (\d+)")


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
