"""export: a plain Hugging Face folder, or an adapter for PEFT, from a job's result."""

from __future__ import annotations

from pathlib import Path

from runner.backend import run_module
from runner.commands.at_hand import at_hand
from runner.settings import Settings


def run(
    settings: Settings, name: str, to: Path, *, merge: bool, adapter_only: bool, dtype: str | None, step: str
) -> None:
    """Exits with the export's own code."""
    words: list[str | Path] = [at_hand(settings, name, step).root, to, "--step", step]
    words += ["--merge"] if merge else []
    words += ["--adapter-only"] if adapter_only else []
    words += ["--dtype", dtype] if dtype else []
    run_module("wake2vec.export", words)
