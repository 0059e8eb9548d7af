"""New words in a GGUF file: which are found whole, how each is spelt there, and what is not done by halves."""

from __future__ import annotations

import json

import pytest
from gguf import TokenType

from tests.machine import JOBS
from tests.tokenizers import metaspace_tokenizer, patterned_tokenizer
from wake2vec.use.gguf import words as patterns

CORPUS = (JOBS / "tiny" / "corpus.txt").read_text("utf-8")


def types_of(words, id_map):
    return {entry.word: (words.tokens[entry.id], words.types[entry.id]) for entry in id_map.new}


@pytest.mark.parametrize(("pattern", "pre"), [("_LLAMA3", "llama-bpe"), ("_QWEN2", "llama-bpe"), ("_TEKKEN", "tekken")])
def test_words_stay_ordinary_where_llama_cpp_finds_whole_entries(make, pattern, pre):
    made = make("llama", patterned_tokenizer(CORPUS, getattr(patterns, pattern)))

    found = types_of(made.words, made.id_map)

    assert made.words.pre == pre
    assert found["riverrun"] == ("Ġriverrun", TokenType.NORMAL)
    assert found["tip-top-lick"] == (" tip-top-lick", TokenType.USER_DEFINED)
    assert not made.words.in_pieces


def test_numbers_that_are_tokens_keep_qwen_s_own_cut(make):
    made = make("qwen2", patterned_tokenizer(CORPUS, patterns._LLAMA3))  # trained on numbers of three digits
    state = json.loads((made.folder / "tokenizer.json").read_text())
    place = state["pre_tokenizer"]["pretokenizers"][0]["pattern"]
    place["Regex"] = place["Regex"].replace(r"\p{N}{1,3}", r"\p{N}")
    state["model"]["vocab"]["19"] = state["model"]["vocab"].pop("Ġthe")
    (made.folder / "tokenizer.json").write_text(json.dumps(state))

    assert made.words.pre == "qwen2"
    assert types_of(made.words, made.id_map)["riverrun"] == (" riverrun", TokenType.USER_DEFINED)


def test_elsewhere_words_are_found_as_they_are_spelt(make):
    made = make("llama")

    assert made.words.pre == "gpt-2"
    assert types_of(made.words, made.id_map)["riverrun"] == (" riverrun", TokenType.USER_DEFINED)


def test_a_word_that_begins_a_longer_base_token_does_not_cut_it(make):
    for made in (
        make("llama", new=["Bloo", "riverrun"]),
        make("llama", metaspace_tokenizer(CORPUS, 2000), new=["Bloo", "riverrun"]),
    ):
        _, kind = types_of(made.words, made.id_map)["Bloo"]

        assert kind == TokenType.NORMAL
        assert made.words.in_pieces == ["Bloo"]
        assert "Bloo" in (made.words.remark or "")
