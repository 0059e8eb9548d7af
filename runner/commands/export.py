"""export: a plain Hugging Face folder, or an adapter for PEFT, from a job's result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.backend import use
from runner.commands.at_hand import at_hand
from runner.settings import Settings
from wake2vec.options import ExportOptions


def run(settings: Settings, name: str, to: Path, **asked: Any) -> None:
    """`asked`: fields of the options. Exits with the export's own code."""
    options = ExportOptions.of(run=settings.runs / name, out=to, **asked)
    at_hand(settings, name, options.step)
    use(options)
