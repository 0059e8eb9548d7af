"""The protocols behind the store's guarantees: each tries to break one and returns its figures."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from tests.faults.simulation import World

SCALE = float(os.environ.get("FAULTS", "0.04"))  # 1 is the whole budget of `make faults`


def budget(full: int, least: int = 1) -> int:
    """A share of the full number of trials, by the environment variable FAULTS."""
    return max(least, round(full * SCALE))


def schedules(count: int, *, exclusive_create: bool = True) -> dict[str, Any]:
    """Random schedules of two and three runners with kills, freezes, skewed clocks, late requests and lost answers."""
    met: Counter[str] = Counter()
    calls, broken = 0, []
    for seed in range(count):
        world = World(seed=seed, runners=2 + seed % 2, exclusive_create=exclusive_create)
        broken += [f"seed {seed}: {fault}" for fault in world.run()]
        met += world.met
        calls += world.calls
    return {"schedules": count, "calls": calls, "faults_by_kind": dict(met), "broken": broken}
