"""A text that lies tokenised on disk is the same as one in memory, and takes no more memory the longer it is."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from tests.machine import JOBS
from wake2vec.data.blocks import Tokens, Windows, window_stacks, windows
from wake2vec.data.cache import mapped, token_table
from wake2vec.data.corpus import open_corpus
from wake2vec.data.dataset import prepare
from wake2vec.vocab.inject import load_tokenizer

SPAN_TOKENS = 500


def spans(count: int) -> Iterator[Tokens]:
    """Held-out spans, made one after the other."""
    for number in range(count):
        ids = (np.arange(SPAN_TOKENS) * 7 + number) % 1000
        yield Tokens(ids=ids.astype(np.int32), byte_ends=np.arange(1, SPAN_TOKENS + 1, dtype=np.int64) * 4)


def peak_bytes(count: int, folder: Path) -> int:
    """The most memory that writing the windows of so many spans took."""
    tracemalloc.start()
    try:
        mapped(folder / f"{count}.npy", lambda: window_stacks(spans(count), 64))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_cached_text_has_the_blocks_and_windows_of_one_in_memory(tmp_path: Path) -> None:
    corpus, tokenizer = open_corpus([JOBS / "tiny" / "corpus.txt"]), load_tokenizer(JOBS / "tiny" / "model")

    cached = prepare(corpus, tokenizer, seq_len=64, cache_dir=tmp_path)
    again = prepare(corpus, tokenizer, seq_len=64, cache_dir=tmp_path)  # this time it is there
    held = prepare(corpus, tokenizer, seq_len=64)

    for data in (cached, again):
        assert data.training_tokens == held.training_tokens
        for name in ("inputs", "targets", "bytes", "places"):
            assert np.array_equal(getattr(data.held_out, name), getattr(held.held_out, name))
        for index in (0, len(held.blocks) - 1):
            assert np.array_equal(data.blocks.block(index), held.blocks.block(index))


def test_windows_on_disk_are_those_in_memory(tmp_path: Path) -> None:
    on_disk = Windows.of(mapped(tmp_path / "windows.npy", lambda: window_stacks(spans(5), 64)))
    in_memory = windows(spans(5), 64, place="text")

    for name in ("inputs", "targets", "bytes", "places"):
        assert np.array_equal(getattr(on_disk, name), getattr(in_memory, name))


def test_writing_ten_times_the_windows_takes_no_more_memory(tmp_path: Path) -> None:
    peak_bytes(1, tmp_path)  # what is imported and cached once

    assert peak_bytes(100, tmp_path) < 1.5 * peak_bytes(10, tmp_path)


def test_datasets_is_asked_only_for_what_its_lowest_version_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[str] = set()
    made = datasets.Dataset.from_generator

    def from_generator(generator: Any, **named: Any) -> Any:
        asked.update(named)
        return made(generator, **named)

    monkeypatch.setattr(datasets.Dataset, "from_generator", from_generator)
    token_table("key", ((True, span) for span in spans(2)), tmp_path)

    assert asked <= {"features", "cache_dir", "keep_in_memory", "gen_kwargs", "num_proc", "split", "writer_batch_size"}
