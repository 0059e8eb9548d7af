"""geometry: measure how the new rows lie among the published ones."""

from __future__ import annotations

from typing import Any

from runner.commands.results.fetch import at_hand
from runner.commands.results.process import use
from runner.settings import Settings
from wake2vec.contract.options import GeometryOptions


def run(settings: Settings, name: str, **asked: Any) -> None:
    """Exits with the measurement's own code; the plate and its figures lie in the run's eval folder."""
    options = GeometryOptions.of(run=settings.runs / name, **asked)
    at_hand(settings, name, "newest" if options.step is None else str(options.step))
    use(options)
