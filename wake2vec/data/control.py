"""English that no job trains on: the page of every evaluation's curve, and the registers a finished job is measured on.

english.txt is the dialogue that opens chapter 3 of Jane Austen's *Persuasion* (1817), in the public domain; where the
registers come from, and under which licences, stands in registers/SOURCES.txt.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wake2vec.data.blocks import Windows, windows
from wake2vec.data.tokens import tokenise

WINDOW = 256  # tokens at most: short enough for every model, so that the figure does not depend on a job's seq_len

_TEXT = Path(__file__).with_name("english.txt")


@dataclass(frozen=True)
class Register:
    """A kind of English. `source` says which text it is."""

    text: str
    source: str


def english_text() -> str:
    return _TEXT.read_text(encoding="utf-8")


def registers() -> dict[str, Register]:
    """Those that come with the program: the page of the curve, and prose, technical writing and talk of 30 kB each."""
    sources = {
        "novel": "Chesterton, The Ball and the Cross (1909), chapter I",
        "manual": "the reStructuredText specification of docutils 0.23",
        "talk": "conversations of the Chit-Chat Challenge",
    }
    folder = _TEXT.with_name("registers")
    found = {
        name: Register((folder / f"{name}.txt").read_text(encoding="utf-8"), source) for name, source in sources.items()
    }
    return {"Austen": Register(english_text(), "the page of Persuasion that every evaluation measures"), **found}


def english(tokenizer: Any, seq_len: int) -> Windows:
    """The control text as a tokenizer cuts it."""
    return windows([tokenise(tokenizer, english_text(), _TEXT)], min(seq_len, WINDOW), place=_TEXT)
