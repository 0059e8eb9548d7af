"""The phases there are, by the name that a job file uses."""

from __future__ import annotations

from wake2vec.phases import p1, p2, p3
from wake2vec.phases.base import Phase

PHASES: dict[str, Phase] = {"p1": p1, "p2": p2, "p3": p3}
