"""export: a plain Hugging Face folder, or an adapter for PEFT, from a job's result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.commands.results.fetch import at_hand
from runner.commands.results.process import use
from runner.settings import Settings
from wake2vec.contract.options import ExportOptions


def run(settings: Settings, name: str, to: Path, **asked: Any) -> None:
    """`asked`: fields of the options. Exits with the export's own code."""
    options = ExportOptions.of(run=settings.runs / name, out=to, **asked)
    at_hand(settings, name, options.step)
    use(options)
