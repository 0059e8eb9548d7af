"""Turn text into token ids, and say which bytes of the text each token stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wake2vec.data.blocks import Tokens
from wake2vec.errors import ModelError


def tokenise(tokenizer: Any, text: str, place: object) -> Tokens:
    """Ids without special tokens. Raises ModelError for a tokenizer without a fast version."""
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(place, "the tokenizer has no fast version", "use a model that ships a tokenizer.json")
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return Tokens(
        ids=np.array(encoding["input_ids"], dtype=np.int32), byte_ends=_byte_ends(text, encoding["offset_mapping"])
    )


def _byte_ends(text: str, offsets: Sequence[tuple[int, int]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Where each token ends in UTF-8 bytes.

    A token's own start is not used: some tokenizers leave the space out of it, and the pieces of one character all name
    the whole character. Ends that never go back give every byte to exactly one token, the first that reaches it.
    """
    if not offsets:
        return np.zeros(0, dtype=np.int64)
    ends = np.maximum.accumulate(np.array([end for _, end in offsets], dtype=np.int64))
    if text.isascii():
        return ends
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    sizes = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    return np.concatenate([[0], np.cumsum(sizes)])[ends].astype(np.int64)


def join(parts: Sequence[Tokens]) -> Tokens:
    """Tokens of several texts as one stretch."""
    sizes = [int(part.byte_ends[-1]) if len(part.byte_ends) else 0 for part in parts]
    before = np.cumsum([0, *sizes[:-1]])
    return Tokens(
        ids=np.concatenate([part.ids for part in parts]),
        byte_ends=np.concatenate([part.byte_ends + start for part, start in zip(parts, before, strict=True)]),
    )
