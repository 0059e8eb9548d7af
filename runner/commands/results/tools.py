"""Tools that use what a job has trained, fetched first where it lies in the store alone."""

from __future__ import annotations

from typing import Any

from runner.commands.results.fetch import at_hand
from runner.commands.results.process import use
from runner.settings import Settings
from wake2vec.contract.options import TOOLS


def use_trained(settings: Settings, tool: str, name: str, **asked: Any) -> None:
    """`asked` are fields of the tool's options, None for their defaults; exits with the tool's own code."""
    options = TOOLS[tool].of(run=settings.runs / name, **asked)
    if (step := options.needs) is not None:
        at_hand(settings, name, step)
    use(options)
