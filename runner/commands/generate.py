"""generate: texts from a job's model, repeatable by their seeds."""

from __future__ import annotations

from typing import Any

from runner.backend import use
from runner.commands.at_hand import at_hand
from runner.settings import Settings
from wake2vec.options import GenerateOptions


def run(settings: Settings, name: str, **asked: Any) -> None:
    """`asked`: fields of the options. Exits with the generator's own code."""
    options = GenerateOptions.of(run=settings.runs / name, **asked)
    at_hand(settings, name, options.step)
    use(options)
