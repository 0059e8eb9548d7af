"""generate: texts from a job's model, repeatable by their seeds."""

from __future__ import annotations

from typing import Any

from runner.commands.results.fetch import at_hand
from runner.commands.results.process import use
from runner.settings import Settings
from wake2vec.contract.options import GenerateOptions


def run(settings: Settings, name: str, **asked: Any) -> None:
    """`asked`: fields of the options. Exits with the generator's own code."""
    options = GenerateOptions.of(run=settings.runs / name, **asked)
    at_hand(settings, name, options.step)
    use(options)
