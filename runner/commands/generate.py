"""generate: texts from a job's model, repeatable by their seeds."""

from __future__ import annotations

from runner.backend import run_module
from runner.commands.at_hand import at_hand
from runner.settings import Settings


def run(settings: Settings, name: str, options: dict[str, str | int | float | None], *, as_json: bool) -> None:
    """`options` of the generator by their names there; None leaves its default. Exits with its own code."""
    words: list[str] = [str(at_hand(settings, name, str(options.get("step") or "newest")).root)]
    for option, value in options.items():
        words += [f"--{option}={value}"] if value is not None else []
    run_module("wake2vec.generate", [*words, *(["--json"] if as_json else [])])
