"""The English control: a text that no job trains on. What a model loses on it is what it forgets.

english.txt is the dialogue that opens chapter 3 of Jane Austen's *Persuasion* (1817), in the public domain.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wake2vec.data.blocks import Windows, windows
from wake2vec.data.tokens import tokenise

WINDOW = 256  # tokens at most: short enough for every model, so that the figure does not depend on a job's seq_len

_TEXT = Path(__file__).with_name("english.txt")


def english_text() -> str:
    return _TEXT.read_text(encoding="utf-8")


def english(tokenizer: Any, seq_len: int) -> Windows:
    """The control text as a tokenizer cuts it."""
    return windows([tokenise(tokenizer, english_text(), _TEXT)], min(seq_len, WINDOW), place=_TEXT)
