"""The data of a job: training blocks and held-out windows of a corpus, for one tokenizer and sequence length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wake2vec.data.blocks import Blocks, Tokens, Windows, split_blocks, windows
from wake2vec.data.corpus import Corpus
from wake2vec.data.heldout import choose, spans_of_text
from wake2vec.data.tokens import join, tokenise
from wake2vec.errors import InputError

SplitBy = Literal["text", "blocks"]


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a trainer reads: blocks to train on, windows to measure on."""

    blocks: Blocks
    held_out: Windows
    training_tokens: int


def prepare(
    corpus: Corpus,
    tokenizer: Any,
    *,
    seq_len: int,
    fraction: float = 0.1,
    seed: int = 42,
    split: SplitBy = "text",
    cache_dir: Path | None = None,
) -> Data:
    """Split, tokenise and cut a corpus. Raises InputError when it is too short for a block or a held-out span."""
    place = ", ".join(map(str, corpus.paths))
    if split == "blocks":
        return _by_blocks(corpus, tokenizer, seq_len, fraction, seed, place)
    chosen = choose(corpus.pieces(), fraction=fraction, seed=seed, place=place)
    training: list[Tokens] = []
    held_out: list[Tokens] = []
    for span, text in spans_of_text(corpus.pieces(), chosen):
        (held_out if span.held_out else training).append(tokenise(tokenizer, text, place))
    if corpus.appended:
        training.append(tokenise(tokenizer, corpus.appended, place))
    ids = np.concatenate([tokens.ids for tokens in training])
    return Data(
        blocks=Blocks(ids, seq_len, place=place),
        held_out=windows(held_out, seq_len, place=place),
        training_tokens=len(ids),
    )


def _by_blocks(corpus: Corpus, tokenizer: Any, seq_len: int, fraction: float, seed: int, place: str) -> Data:
    whole = join([tokenise(tokenizer, text, place) for text in (*corpus.pieces(), corpus.appended) if text])
    n_blocks = max(0, (len(whole.ids) - 1) // seq_len)
    if n_blocks == 0:
        raise InputError(place, f"the text is shorter than one block of {seq_len} tokens", "give a longer text")
    training, held_out = split_blocks(n_blocks, fraction=fraction, seed=seed, place=place)
    spans = [_block_tokens(whole, int(index), seq_len) for index in held_out]
    return Data(
        blocks=Blocks(whole.ids, seq_len, place=place, only=training),
        held_out=windows(spans, seq_len, place=place),
        training_tokens=len(training) * seq_len,
    )


def _block_tokens(whole: Tokens, index: int, seq_len: int) -> Tokens:
    part = slice(index * seq_len, index * seq_len + seq_len + 1)
    ends = whole.byte_ends[part]
    before = whole.byte_ends[part.start - 1] if part.start else 0
    return Tokens(ids=whole.ids[part], byte_ends=ends - before)


def control(texts: Sequence[str], tokenizer: Any, *, seq_len: int, place: object) -> Windows:
    """Windows over texts that are only measured on, such as the English control."""
    return windows([tokenise(tokenizer, text, place) for text in texts], seq_len, place=place)
