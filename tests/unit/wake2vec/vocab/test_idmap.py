"""The id map is the only source of row identity, and it is checked wherever it is read."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from string import ascii_letters
from typing import Any

import numpy as np
import pytest

from wake2vec.contract.errors import InputError
from wake2vec.contract.words.lexicon import read_lexicon
from wake2vec.vocab.idmap import load
from wake2vec.vocab.inject import Injection, inject

REFERENCE = os.environ.get("WAKE2VEC_REFERENCE_DATA")


@pytest.fixture(scope="module")
def done(byte_level: Any, tmp_path_factory: pytest.TempPathFactory) -> Injection:
    return inject(byte_level, ["riverrun", "the", "paù"], directory=tmp_path_factory.mktemp("injected"))


def test_a_saved_map_is_the_same_map(done: Injection, tmp_path: Path) -> None:
    done.id_map.save(tmp_path / "vocab.json")

    assert load(tmp_path / "vocab.json") == done.id_map


def test_rows_of_ids_are_found_and_base_ids_have_none(done: Injection) -> None:
    first = done.id_map.first_new_id

    assert done.id_map.rows(np.array([0, first - 1, first, first + 1, first + 2])).tolist() == [-1, -1, 0, 1, -1]


def test_another_tokenizer_does_not_pass(done: Injection, byte_level: Any) -> None:
    with pytest.raises(InputError, match=r"place: 'riverrun' has id \d+ in the map but None in the tokenizer"):
        done.id_map.check(byte_level, "place")


def test_a_map_with_words_left_out_does_not_pass(done: Injection) -> None:
    shorter = replace(done.id_map, entries=done.id_map.entries[:-1])

    with pytest.raises(InputError, match="ids but the tokenizer"):
        shorter.check(done.tokenizer, "place")


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("format", 9, "another format"),
        ("n_new", 5, "do not follow each other"),
        ("first_new_id", 3, "do not follow each other at 'riverrun'"),
        ("entries", [{"word": "x"}], "not an id map"),
        ("base_fingerprint", None, "not an id map"),
    ],
)
def test_a_damaged_map_is_refused(done: Injection, tmp_path: Path, key: str, value: Any, problem: str) -> None:
    path = tmp_path / "vocab.json"
    done.id_map.save(path)
    data = json.loads(path.read_text())
    if value is None:
        del data[key]
    else:
        data[key] = value
    path.write_text(json.dumps(data))

    with pytest.raises(InputError, match=problem):
        load(path)


def test_a_missing_map_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"vocab\.json: No such file"):
        load(tmp_path / "vocab.json")


# The shape of Qwen2.5's tokenizer: 151,643 tokens in the model, 22 added ones, a matrix of 152,064 rows.
QWEN_MODEL, QWEN_ADDED, QWEN_MATRIX = 151_643, 22, 152_064
LEXICON_WORDS, KNOWN_WORDS = 44_990, 767
TENTH = 15_164, 4_499, 76


def spelled(number: int) -> str:
    """A word of six letters for each number; no letter stands in two places, so that merges build from the left."""
    return "".join(ascii_letters[8 * place + (number >> 3 * place & 7)] for place in range(6))


def tokenizer_of_published_shape(known: list[str], size: int) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {letter: id_ for id_, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: dict[tuple[str, str], None] = {}
    for word in known:
        for end in range(2, len(word) + 1):
            merges[(word[: end - 1], word[end - 1])] = None
            vocabulary.setdefault(word[:end], len(vocabulary))
    for number in range(size - len(vocabulary)):
        vocabulary[f"!{number}"] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocabulary, list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(f"<|special_{n}|>", special=True) for n in range(QWEN_ADDED)])
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize(
    ("size", "words", "known_words"),
    [TENTH, pytest.param(QWEN_MODEL, LEXICON_WORDS, KNOWN_WORDS, marks=pytest.mark.sweep)],
)
def test_the_published_counts_hold_on_a_tokenizer_of_that_shape(
    tmp_path: Path, size: int, words: int, known_words: int
) -> None:
    lexicon = [spelled(number) for number in range(words)]
    first = words * 8 // 27  # behind the first 399
    known = lexicon[first :: (words - first) // known_words][:known_words]
    base = tokenizer_of_published_shape(known, size)

    done = inject(base, lexicon, directory=tmp_path)

    id_map = done.id_map
    assert len(base) == size + QWEN_ADDED
    counts = len(id_map.known), id_map.n_new, len(done.tokenizer)
    assert counts == (known_words, words - known_words, size + QWEN_ADDED + words - known_words)
    if size == QWEN_MODEL:
        assert counts == (767, 44_223, 195_888)
    assert id_map.first_new_id == size + QWEN_ADDED
    assert [entry.word for entry in id_map.new[:399]] == lexicon[:399]
    assert all(entry.trainable and entry.reachable for entry in id_map.new)
    assert id_map.scheme == "byte-level"


@pytest.mark.skipif(REFERENCE is None, reason="WAKE2VEC_REFERENCE_DATA does not name the folder of reference data")
def test_the_ids_of_a_published_run_are_reproduced(tmp_path: Path) -> None:
    assert REFERENCE is not None
    added: dict[str, int] = json.loads((Path(REFERENCE) / "tinyllama_added_tokens.json").read_text(encoding="utf-8"))
    lexicon = read_lexicon(Path(REFERENCE) / "wake_lexicon.txt").words
    base = plain_vocabulary([word for word in lexicon if word not in added], 32_000)

    done = inject(base, lexicon, directory=tmp_path, match="anywhere")

    assert {entry.word: entry.id for entry in done.id_map.new} == added
    assert len(done.id_map.known) == 490


def plain_vocabulary(known: list[str], size: int) -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokens = ["<unk>", *known]
    tokens += [f"<{number}>" for number in range(size - len(tokens))]
    model = models.BPE({token: id_ for id_, token in enumerate(tokens)}, [], unk_token="<unk>")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), unk_token="<unk>")
