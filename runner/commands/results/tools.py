"""Tools that use what a job has trained, fetched first where it lies in the store alone.

`asked` are fields of the tool's options; each exits with the tool's own code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.commands.results.fetch import at_hand
from runner.commands.results.process import use
from runner.settings import Settings
from wake2vec.contract.options import (
    BlindOptions,
    ExportOptions,
    GenerateOptions,
    GeometryOptions,
    HopesOptions,
)


def generate(settings: Settings, name: str, **asked: Any) -> None:
    options = GenerateOptions.of(run=settings.runs / name, **asked)
    at_hand(settings, name, options.step)
    use(options)


def geometry(settings: Settings, name: str, **asked: Any) -> None:
    """The plate and its figures lie in the run's eval folder."""
    options = GeometryOptions.of(run=settings.runs / name, **asked)
    at_hand(settings, name, "newest" if options.step is None else str(options.step))
    use(options)


def hopes(settings: Settings, name: str, **asked: Any) -> None:
    """The figures lie in the run's eval folder too."""
    options = HopesOptions.of(run=settings.runs / name, **asked)
    at_hand(settings, name, options.step)
    use(options)


def blind(settings: Settings, name: str, **asked: Any) -> None:
    """Scoring needs nothing but the sheet and its key."""
    options = BlindOptions.of(run=settings.runs / name, **asked)
    if options.score is None:
        at_hand(settings, name, options.step)
    use(options)


def export(settings: Settings, name: str, to: Path, **asked: Any) -> None:
    options = ExportOptions.of(run=settings.runs / name, out=to, **asked)
    at_hand(settings, name, options.step)
    use(options)
