"""The data of a job: training blocks and held-out windows of a corpus, for one tokenizer and sequence length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wake2vec.contract.errors import InputError
from wake2vec.data.blocks import Blocks, Shuffle, Tokens, Windows, split_blocks, window_stacks, windows
from wake2vec.data.cache import TokenTable, key_of, mapped, token_table
from wake2vec.data.corpus import Corpus
from wake2vec.data.heldout import JOINED_CHARACTERS, SPAN_CHARACTERS, Span, choose, spans_of_text
from wake2vec.data.lines import Hyphens, LineBreaks, Print, as_printed
from wake2vec.data.permutation import Ints
from wake2vec.data.tokens import Stream, fingerprint, join, token_ids, tokenise

SplitBy = Literal["text", "blocks"]


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a trainer reads: blocks to train on, windows to measure on."""

    blocks: Blocks
    held_out: Windows
    training_tokens: int
    lines: Print | None  # how the text is printed, where its line breaks were joined


def prepare(
    corpus: Corpus,
    tokenizer: Any,
    *,
    seq_len: int,
    fraction: float = 0.1,
    seed: int = 42,
    split: SplitBy = "text",
    shuffle: Shuffle = "scikit-learn",
    line_breaks: LineBreaks = "keep",
    hyphens: Hyphens = "keep",
    cache_dir: Path | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Data:
    """Split, tokenise and cut a corpus. What is held out is chosen before its lines are joined.

    With `cache_dir` tokens are made once for a text and a tokenizer, and stay on disk: memory does not grow with it.
    Raises InputError when it is too short for a block or a held-out span.
    """
    place = ", ".join(map(str, corpus.paths))
    lines = as_printed(corpus, line_breaks, hyphens)
    if split == "blocks":
        whole = _whole(corpus, lines, shuffle, tokenizer, place)
        return _by_blocks(whole, lines, shuffle, seq_len, fraction, seed, place)
    chosen = choose(corpus.pieces(), fraction=fraction, seed=seed, place=place)
    spans = _spans(corpus, chosen, lines, tokenizer, place, progress)
    if cache_dir is None:
        return _in_memory(list(spans), lines, seq_len, place)
    key = key_of(
        text=corpus.sha256,
        tokenizer=fingerprint(tokenizer),
        fraction=fraction,
        seed=seed,
        cut=[SPAN_CHARACTERS, JOINED_CHARACTERS],
        **({} if lines is None else {"lines": [lines.full, lines.hyphens]}),
    )
    table = token_table(key, spans, cache_dir)
    training = table.training()
    held_out = mapped(
        cache_dir / key / f"windows-{seq_len}.npy",
        lambda: _stacks(table, seq_len, place),
    )
    return Data(
        blocks=Blocks(training, seq_len, place=place),
        held_out=Windows.of(held_out),
        training_tokens=len(training),
        lines=lines,
    )


def parted(
    corpus: Corpus,
    tokenizer: Any,
    *,
    seq_len: int,
    fraction: float,
    seed: int,
    split: SplitBy,
    shuffle: Shuffle,
    lines: Print | None,
) -> Iterator[tuple[bool, str]]:
    """The text itself, as `prepare` splits it: stretches in their order, and whether each is held out."""
    place = ", ".join(map(str, corpus.paths))
    if split == "text":
        chosen = choose(corpus.pieces(), fraction=fraction, seed=seed, place=place)
        yield from ((span.held_out, text) for span, text in spans_of_text(corpus.pieces(), chosen))
        return
    whole, body = _whole(corpus, lines, shuffle, tokenizer, place), corpus.text().encode()
    training, held_out = _sides(whole, shuffle, seq_len, fraction, seed, place)
    ends = np.concatenate([[0], whole.byte_ends])
    for block in np.sort(np.concatenate([training, held_out])):
        part = body[ends[block * seq_len] : ends[(block + 1) * seq_len]]
        if text := part.decode(errors="ignore"):  # a cut may go through a character
            yield bool(np.isin(block, held_out)), text


def _stacks(table: TokenTable, seq_len: int, place: str) -> Iterator[Ints]:
    stacks = window_stacks(table.held_out(), seq_len)
    first = next(stacks, None)
    if first is None:
        raise InputError(place, "no held-out span has two tokens", "give a longer text or a larger held-out fraction")
    yield first
    yield from stacks


def _spans(
    corpus: Corpus,
    chosen: tuple[Span, ...],
    lines: Print | None,
    tokenizer: Any,
    place: str,
    progress: Callable[[float], None],
) -> Iterator[tuple[bool, Tokens]]:
    """Each span of the text, held out or not, as tokens; what a job appends to its text comes last."""

    def trained(text: str, lines: Print | None) -> Tokens:
        ids = token_ids(tokenizer, text, place, lines)
        return Tokens(ids=ids, byte_ends=np.zeros(0, dtype=np.int64))

    read, whole = 0, sum(path.stat().st_size for path in corpus.paths)
    for span, text in spans_of_text(corpus.pieces(), chosen):
        # only of held-out text is it ever asked which bytes a token stands for
        yield span.held_out, tokenise(tokenizer, text, place, lines) if span.held_out else trained(text, lines)
        read += len(text.encode("utf-8", "replace"))
        progress(min(1.0, read / max(whole, 1)))
    if corpus.appended:
        yield False, trained(corpus.appended, None)


def _in_memory(spans: list[tuple[bool, Tokens]], lines: Print | None, seq_len: int, place: str) -> Data:
    training = Stream([tokens.ids for held_out, tokens in spans if not held_out])
    return Data(
        blocks=Blocks(training, seq_len, place=place),
        held_out=windows([tokens for held_out, tokens in spans if held_out], seq_len, place=place),
        training_tokens=len(training),
        lines=lines,
    )


def _whole(corpus: Corpus, lines: Print | None, shuffle: Shuffle, tokenizer: Any, place: str) -> Tokens:
    """All of the text at once, as the original scripts cut it: a word across two pieces would move every block."""
    texts = corpus.pieces() if lines is None and shuffle == "hashes" else [corpus.text()]
    parts = [tokenise(tokenizer, text, place, lines) for text in texts]
    return join([*parts, *([tokenise(tokenizer, corpus.appended, place)] if corpus.appended else [])])


def _by_blocks(
    whole: Tokens, lines: Print | None, shuffle: Shuffle, seq_len: int, fraction: float, seed: int, place: str
) -> Data:
    training, held_out = _sides(whole, shuffle, seq_len, fraction, seed, place)
    spans = [_block_tokens(whole, int(index), seq_len) for index in held_out]
    return Data(
        blocks=Blocks(whole.ids, seq_len, place=place, only=training),
        held_out=windows(spans, seq_len, place=place),
        training_tokens=len(training) * seq_len,
        lines=lines,
    )


def _sides(whole: Tokens, shuffle: Shuffle, seq_len: int, fraction: float, seed: int, place: str) -> tuple[Ints, Ints]:
    """Blocks to train on, and those held out."""
    complete = max(0, (len(whole.ids) - 1) // seq_len)  # have the target of their last token too
    n_blocks = complete if shuffle == "hashes" else len(whole.ids) // seq_len
    if n_blocks == 0:
        raise InputError(place, f"the text is shorter than one block of {seq_len} tokens", "give a longer text")
    training, held_out = split_blocks(n_blocks, fraction=fraction, seed=seed, place=place, shuffle=shuffle)
    return training[training < complete], held_out


def _block_tokens(whole: Tokens, index: int, seq_len: int) -> Tokens:
    part = slice(index * seq_len, index * seq_len + seq_len + 1)
    ends = whole.byte_ends[part]
    before = whole.byte_ends[part.start - 1] if part.start else 0
    return Tokens(ids=whole.ids[part], byte_ends=ends - before)
