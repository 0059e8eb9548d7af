"""What a tokenizer cuts words into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def pieces(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """Ids that a tokenizer cuts each text into with a space before it."""
    # behind "x", as some tokenizers put a space before a text themselves and others do not
    lead = tokenizer("x", add_special_tokens=False)["input_ids"]
    encoded = tokenizer([f"x {text}" for text in texts], add_special_tokens=False)["input_ids"]
    return [list(ids[len(lead) :]) for ids in encoded]
