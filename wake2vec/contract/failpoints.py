"""Named places where a test can make the process die or the disk fail. Does nothing unless the environment asks.

WAKE2VEC_FAILPOINTS="checkpoint.rename=kill:2,store.put=ENOSPC" kills at the second hit of the first and raises
OSError(ENOSPC) at the first hit of the second; ENOSPC:3+ goes on raising from the third hit on, ENOSPC:5% raises with
that chance at every hit. Actions: kill (SIGKILL to the process itself), oom (MemoryError), stall (a second's rest, for
whoever wants to strike from outside just there) or the name of an errno.
trace=FILE appends the name of every place that is passed.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections import Counter

VARIABLE = "WAKE2VEC_FAILPOINTS"
STALL_SECONDS = 1.0
_hits: Counter[str] = Counter()


def failpoint(name: str) -> None:
    asked = os.environ.get(VARIABLE)
    if not asked:
        return
    _hits[name] += 1
    for rule in asked.split(","):
        place, _, action = rule.partition("=")
        if place == "trace":
            with open(action, "a") as file:
                file.write(f"{name}\n")
        elif place == name:
            _strike(name, action, _hits[name])


def _strike(name: str, action: str, hit: int) -> None:
    what, _, when = action.partition(":")
    if when.endswith("%"):
        if random.random() * 100 >= float(when[:-1]):
            return
        when = f"{hit}"
    wanted = int(when.rstrip("+") or 1)
    if hit < wanted or (hit > wanted and not when.endswith("+")):
        return
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "oom":
        raise MemoryError(f"out of memory (failpoint {name})")
    if what == "stall":
        time.sleep(STALL_SECONDS)
        return
    number = getattr(errno, what)
    raise OSError(number, os.strerror(number), name)
