"""Named places where a test can make the process die or the disk fail. Does nothing unless the environment asks.

WAKE2VEC_FAILPOINTS="checkpoint.rename=kill:2,store.put=ENOSPC" kills at the second hit of the first and raises
OSError(ENOSPC) at the first hit of the second. Actions: kill (SIGKILL to the process itself) or the name of an errno.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter

_hits: Counter[str] = Counter()


def failpoint(name: str) -> None:
    asked = os.environ.get("WAKE2VEC_FAILPOINTS")
    if not asked:
        return
    _hits[name] += 1
    for rule in asked.split(","):
        place, _, action = rule.partition("=")
        what, _, hit = action.partition(":")
        if place != name or _hits[name] != int(hit or 1):
            continue
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, what)
        raise OSError(number, os.strerror(number), name)
