"""morphemes: groups of derived words out of a word list, or what a group file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.commands.results.process import use
from wake2vec.contract.errors import InputError
from wake2vec.contract.options import MorphemesOptions


def run(file: Path, *, derive: bool, lexicon: Path | None, **asked: Any) -> None:
    """Exits with the tool's own code. Raises InputError for a file that is not there."""
    for path in (file, lexicon):
        if path is not None and not path.exists():
            raise InputError(path, "no such file" if path == file else "is not there", "name one that is here")
    words = file if derive else lexicon
    groups = None if derive else file
    use(MorphemesOptions.of(derive=derive, lexicon=words, groups=groups, **asked))
