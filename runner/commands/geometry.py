"""geometry: measure how the new rows lie among the published ones."""

from __future__ import annotations

from runner.backend import run_module
from runner.commands.at_hand import at_hand
from runner.settings import Settings


def run(settings: Settings, name: str, *, step: int | None, side: str) -> None:
    """Exits with the measurement's own code; the plate and its figures lie in the run's eval folder."""
    words = [str(at_hand(settings, name, "newest" if step is None else str(step)).root), "--side", side]
    run_module("wake2vec.geometry", [*words, *(["--step", str(step)] if step is not None else [])])
