"""New words get one token each, and nothing else about a tokenizer changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wake2vec.contract.errors import InputError, ModelError
from wake2vec.data.tokens import fingerprint
from wake2vec.vocab.inject import Injection, inject, load_tokenizer

KNOWN = "e"  # a single letter is a base token of every make
WORDS = ["riverrun", KNOWN, "prankquean", "tip-top", "o'er", "paùpulation", "gé-gé", "thè", "bababadalgharagh"]
TEXT = "The riverrun, past (prankquean's) tip-top o'er paùpulation; gé-gé thè\n bababadalgharagh riverrun"


@pytest.fixture(scope="module", params=["byte_level", "metaspace"])
def base(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def done(base: Any, tmp_path_factory: pytest.TempPathFactory) -> Injection:
    return inject(base, WORDS, directory=tmp_path_factory.mktemp("injected"))


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_text_comes_back_as_it_went_in(done: Injection) -> None:
    assert done.tokenizer.decode(ids(done.tokenizer, TEXT)) == TEXT


def test_every_new_word_is_one_token_with_its_space(done: Injection) -> None:
    for entry in done.id_map.new:
        assert entry.reachable
        assert ids(done.tokenizer, f"see {entry.word}, see")[-3:].count(entry.id) <= 1
        assert entry.id in ids(done.tokenizer, f"see {entry.word}, see")


def test_a_new_word_takes_no_token_for_its_space(base: Any, done: Injection) -> None:
    assert len(ids(done.tokenizer, "the riverrun")) == 1 + len(ids(base, "the"))


def test_words_are_not_found_inside_words(base: Any, done: Injection) -> None:
    for text in ("catastriverrunphe", "riverruns", "xriverrun", " tip-tops", "gé-géx", " riverrunń"):
        assert ids(done.tokenizer, text) == ids(base, text)


def test_new_ids_follow_the_base_without_a_gap_in_the_order_of_the_lexicon(base: Any, done: Injection) -> None:
    new = [word for word in WORDS if word != KNOWN]

    assert [(entry.word, entry.id, entry.row) for entry in done.id_map.new] == [
        (word, len(base) + row, row) for row, word in enumerate(new)
    ]
    assert len(done.tokenizer) == len(base) + len(new)


def test_known_words_keep_their_id_and_get_no_row(base: Any, done: Injection) -> None:
    (known,) = done.id_map.known

    assert (known.word, known.id, known.row, known.trainable) == (KNOWN, base.get_vocab()[KNOWN], None, False)


def test_base_tokens_keep_their_ids(base: Any, done: Injection) -> None:
    after = done.tokenizer.get_vocab()

    assert {token: after[token] for token in base.get_vocab()} == base.get_vocab()


def test_special_tokens_stay_special(base: Any, done: Injection) -> None:
    text = f"the {base.eos_token} riverrun"

    assert done.tokenizer.eos_token_id == base.eos_token_id
    assert base.eos_token_id in ids(done.tokenizer, text)
    assert base.eos_token not in done.tokenizer.decode(ids(done.tokenizer, text), skip_special_tokens=True)
    assert done.tokenizer("the sea")["input_ids"] == base("the sea")["input_ids"]


def test_saving_again_changes_nothing(done: Injection, tmp_path: Path) -> None:
    done.tokenizer.save_pretrained(tmp_path)

    again = load_tokenizer(tmp_path)

    assert ids(again, TEXT) == ids(done.tokenizer, TEXT)
    assert fingerprint(again) == fingerprint(done.tokenizer)


@pytest.mark.parametrize(
    ("make", "model_type"),
    [
        ("byte_level", "qwen2"),
        ("byte_level", "llama"),
        ("metaspace", "llama"),
        ("metaspace", "mistral"),
        ("metaspace", "phi3"),
    ],
)
def test_beside_a_model_the_changed_tokenizer_is_loaded(
    make: str, model_type: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # transformers rebuilds the tokenizers of some models from their vocabulary, which would cut new words up again
    model, export = tmp_path / "model", tmp_path / "export"
    request.getfixturevalue(make).save_pretrained(model)
    (model / "config.json").write_text(f'{{"model_type": "{model_type}"}}')
    done = inject(load_tokenizer(model), WORDS, directory=tmp_path / "tokenizer")

    done.tokenizer.save_pretrained(export)
    (export / "config.json").write_text(f'{{"model_type": "{model_type}"}}')

    assert ids(load_tokenizer(export), TEXT) == ids(done.tokenizer, TEXT)
    assert all(entry.id in ids(load_tokenizer(export), f"see {entry.word}") for entry in done.id_map.new)


def test_capitalised_forms_follow_all_words(base: Any, tmp_path: Path) -> None:
    both = inject(base, WORDS, directory=tmp_path, case="also-capitalised")

    words = [entry.word for entry in both.id_map.new]
    plain = [word for word in WORDS if word != KNOWN]
    assert words[: len(plain)] == plain
    assert {"Riverrun", "Tip-top", "Gé-gé"} <= set(words)
    assert both.id_map.rows(ids_array(both.tokenizer, "see Riverrun")).max() >= len(plain)


def ids_array(tokenizer: Any, text: str) -> Any:
    import numpy as np

    return np.array(ids(tokenizer, text))


def test_anywhere_matches_inside_words_as_the_original_scripts_did(base: Any, tmp_path: Path) -> None:
    done = inject(base, WORDS, directory=tmp_path, match="anywhere")

    inside = ids(done.tokenizer, "see riverruns")
    assert done.id_map.new[0].word == "riverrun"
    assert done.id_map.new[0].id in inside
    assert done.tokenizer.get_vocab()["riverrun"] == len(base)


def test_a_lexicon_of_known_words_is_refused(base: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="already knows all 1 words"):
        inject(base, [KNOWN], directory=tmp_path)


def test_a_tokenizer_without_a_fast_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no fast version"):
        inject(object(), ["riverrun"], directory=tmp_path)


def test_a_base_that_whole_matches_would_change_gets_added_tokens(tmp_path: Path) -> None:
    # "ab" is a base token that no merge reaches: with ignore_merges the text " ab" would be cut in another way
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: id_ for id_, letter in enumerate([*alphabet, "ab"])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    base = PreTrainedTokenizerFast(tokenizer_object=backend)

    done = inject(base, ["riverrun"], directory=tmp_path)

    assert done.id_map.scheme == "added"
    assert ids(done.tokenizer, "ab") == ids(base, "ab")
    assert done.id_map.new[0].id in ids(done.tokenizer, "the riverrun, past")
    assert done.tokenizer.decode(ids(done.tokenizer, "the riverrun, past")) == "the riverrun, past"
