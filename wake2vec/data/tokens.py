"""Turn text into token ids, and say which bytes of the text each token stands for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wake2vec.contract.errors import ModelError
from wake2vec.data.blocks import Tokens
from wake2vec.data.lines import Print, join_lines
from wake2vec.data.permutation import Ints


class Stream:
    """Token ids one after the other, kept in the pieces that they came in: each may lie on disk."""

    def __init__(self, chunks: Sequence[npt.NDArray[np.integer]]) -> None:
        self._chunks = [chunk for chunk in chunks if len(chunk)]
        self._ends = np.cumsum([0, *(len(chunk) for chunk in self._chunks)])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, part: slice) -> npt.NDArray[np.integer]:
        start, stop, step = part.indices(len(self))
        assert step == 1, f"a stream is read in order, not by {step}"
        first = int(np.searchsorted(self._ends, start, side="right")) - 1
        pieces = []
        while start < stop:
            end = min(stop, int(self._ends[first + 1]))
            pieces.append(self._chunks[first][start - self._ends[first] : end - self._ends[first]])
            start, first = end, first + 1
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32)


def token_ids(tokenizer: Any, text: str, place: object, lines: Print | None = None) -> npt.NDArray[np.int32]:
    """Ids alone, as `tokenise` gives them, in half of the time. Raises ModelError as it does."""
    _require_fast(tokenizer, place)
    text = text if lines is None else join_lines(text, lines).text
    encoding = tokenizer.backend_tokenizer.encode_batch_fast([text], add_special_tokens=False)[0]
    return np.array(encoding.ids, dtype=np.int32)


def tokenise(tokenizer: Any, text: str, place: object, lines: Print | None = None) -> Tokens:
    """Ids without special tokens, of the text with its lines joined where they are of print.

    Bytes are always those of the text as it was. Raises ModelError for a tokenizer without a fast version.
    """
    _require_fast(tokenizer, place)
    joined = None if lines is None else join_lines(text, lines)
    read = text if joined is None else joined.text
    encoding = tokenizer(read, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ends = np.array([end for _, end in encoding["offset_mapping"]], dtype=np.int64)
    return Tokens(
        ids=np.array(encoding["input_ids"], dtype=np.int32),
        byte_ends=_byte_ends(text, ends if joined is None else joined.ends[ends]),
    )


def _require_fast(tokenizer: Any, place: object) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(place, "the tokenizer has no fast version", "use a model that ships a tokenizer.json")


def _byte_ends(text: str, ends: Ints) -> Ints:
    """Where each token ends in UTF-8 bytes, from where it ends in characters.

    A token's own start is not used: some tokenizers leave the space out of it, and the pieces of one character all name
    the whole character. Ends that never go back give every byte to exactly one token, the first that reaches it.
    """
    if not len(ends):
        return np.zeros(0, dtype=np.int64)
    ends = np.maximum.accumulate(ends)
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


_PROBE = " the  naïve riverrun, don't  1939 past-Eve…\n\n\tand Adam's 森 🜁"


def fingerprint(tokenizer: Any) -> str:
    """sha256 of a tokenizer's vocabulary and of how it cuts a probe; the same for every library version."""
    vocabulary = sorted((int(id_), token) for token, id_ in tokenizer.get_vocab().items())
    probe = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    return hashlib.sha256(json.dumps([vocabulary, probe]).encode()).hexdigest()


def pieces(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """Ids that a tokenizer cuts each text into with a space before it."""
    # behind "x", as some tokenizers put a space before a text themselves and others do not
    lead = tokenizer("x", add_special_tokens=False)["input_ids"]
    encoded = tokenizer([f"x {text}" for text in texts], add_special_tokens=False)["input_ids"]
    return [list(ids[len(lead) :]) for ids in encoded]
