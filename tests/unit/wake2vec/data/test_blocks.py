"""Blocks and windows: every token is a target once, and bytes add up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.material.tiny import make_tokenizer
from wake2vec.contract.errors import InputError
from wake2vec.data.blocks import IGNORED, Blocks, Tokens, split_blocks, windows
from wake2vec.data.corpus import open_corpus
from wake2vec.data.dataset import prepare
from wake2vec.data.tokens import Stream


@given(n=st.integers(2, 200), length=st.integers(1, 40))
def test_targets_are_the_stream_without_its_first_token_and_tail(n: int, length: int) -> None:
    if n <= length:
        return
    blocks = Blocks(np.arange(n), length, place="text")

    targets = np.concatenate([blocks.block(index)[1] for index in range(len(blocks))])

    assert targets.tolist() == list(range(1, len(targets) + 1))
    assert n - 1 - len(targets) < length


@given(n=st.integers(9, 200), half=st.integers(1, 4))
def test_a_block_split_in_place_keeps_its_targets_in_order(n: int, half: int) -> None:
    inputs, targets = Blocks(np.arange(n), 2 * half, place="text").block(0)

    parts = [Blocks(np.arange(n), half, place="text").block(index) for index in (0, 1)]

    assert np.concatenate([part[0] for part in parts]).tolist() == inputs.tolist()
    assert np.concatenate([part[1] for part in parts]).tolist() == targets.tolist()


@given(sizes=st.lists(st.integers(0, 30), max_size=6), length=st.integers(1, 7))
def test_a_stream_in_pieces_reads_as_one(sizes: list[int], length: int) -> None:
    whole = np.arange(sum(sizes))
    pieces = Stream(np.split(whole, np.cumsum(sizes)[:-1]) if sizes else [])

    assert len(pieces) == len(whole)
    for start in range(0, len(whole) + 2, length):
        assert pieces[start : start + length].tolist() == whole[start : start + length].tolist()


def test_a_text_shorter_than_a_block_is_refused() -> None:
    with pytest.raises(InputError, match=r"my\.txt: the training text has 64 tokens, fewer than one block of 64"):
        Blocks(np.arange(64), 64, place="my.txt")


@given(sizes=st.lists(st.integers(0, 25), min_size=1, max_size=5), length=st.integers(1, 8))
def test_held_out_tokens_but_the_first_are_targets_once_with_their_bytes(sizes: list[int], length: int) -> None:
    ids = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    spans = [Tokens(ids=part, byte_ends=3 * np.arange(1, len(part) + 1)) for part in ids]
    expected = [int(id_) for part in ids for id_ in part[1:]]
    if not expected:
        return

    made = windows(spans, length, place="text")

    asked = made.targets != IGNORED
    assert made.targets[asked].tolist() == expected
    assert made.inputs[asked].tolist() == [id_ - 1 for id_ in expected]
    assert int((made.targets != IGNORED).sum()) == len(expected)
    assert made.n_bytes == 3 * len(expected)
    assert made.places[asked].tolist() == [3 * id_ for id_ in expected]
    assert made.bytes[~asked].sum() == 0


def test_held_out_spans_without_a_second_token_are_refused() -> None:
    with pytest.raises(InputError, match="no held-out span has two tokens"):
        windows([Tokens(ids=np.array([1]), byte_ends=np.array([1]))], 8, place="text")


@given(n_blocks=st.integers(2, 500), seed=st.integers(0, 99))
def test_the_block_split_is_whole_and_rounds_held_out_up(n_blocks: int, seed: int) -> None:
    training, held_out = split_blocks(n_blocks, fraction=0.1, seed=seed, place="text")

    assert sorted([*training, *held_out]) == list(range(n_blocks))
    assert len(held_out) == -(-n_blocks // 10)


@pytest.mark.parametrize(
    ("n_blocks", "held_out"), [(10, [8]), (25, [0, 8, 16]), (37, [4, 13, 17, 29]), (1001, [521, 941, 741, 980, 411])]
)
def test_the_block_split_is_that_of_scikit_learn(n_blocks: int, held_out: list[int]) -> None:
    """train_test_split(range(n), test_size=0.1, random_state=42), as scikit-learn 1.7 gave it."""
    training, found = split_blocks(n_blocks, fraction=0.1, seed=42, place="text")

    assert set(held_out) <= set(found.tolist())
    assert not set(held_out) & set(training.tolist())
    assert len(found) == -(-n_blocks // 10)
    if n_blocks == 1001:
        assert int(found.sum()) == 50250


def test_jobs_of_the_first_release_keep_their_own_stream_of_blocks() -> None:
    _, held_out = split_blocks(25, fraction=0.1, seed=42, place="text", shuffle="hashes")

    assert held_out.tolist() == [7, 14, 17]


def test_a_single_block_cannot_be_split() -> None:
    with pytest.raises(InputError, match="1 blocks cannot be split"):
        split_blocks(1, fraction=0.1, seed=1, place="text")


def test_occurrences_count_targets() -> None:
    blocks = Blocks(np.array([0, 1, 1, 2, 1, 0, 0]), 2, place="text")

    assert blocks.occurrences(4).tolist() == [2, 3, 1, 0]


def test_a_text_that_fills_its_last_block_is_split_as_the_original_counts_blocks(tmp_path: Path) -> None:
    """That block lacks the target behind its last token: it is measured where held out, and left out of training."""
    (tmp_path / "text.txt").write_text("abcdefghij" * 4)
    tokenizer = make_tokenizer("abcdefghij", 256)
    length = len(tokenizer("abcdefghij" * 4)["input_ids"]) // 10

    found = prepare(open_corpus([tmp_path / "text.txt"]), tokenizer, seq_len=length, split="blocks")

    assert len(found.blocks) == 8  # of ten; [8] is held out, and 9 is not whole
    assert found.blocks.block(7)[0].tolist() == tokenizer("abcdefghij" * 4)["input_ids"][7 * length : 8 * length]
