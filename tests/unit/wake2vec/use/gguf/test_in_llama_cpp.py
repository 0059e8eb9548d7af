"""llama.cpp reads what was written: the same logits, and the same tokens for texts with new words in them."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import AutoTokenizer

from tests.llamacpp import LlamaCpp
from tests.machine import JOBS
from tests.tokenizers import metaspace_tokenizer, patterned_tokenizer
from wake2vec.use.gguf import words as patterns

CORPUS = (JOBS / "tiny" / "corpus.txt").read_text("utf-8")
TEXTS = [
    " past riverrun, the gracehoper\n\nand the riverrunner ran; o'erwicker said: tip-top-lick!",
    " In 1922 (or 3000) the “prankquean” did not riverrunning go, nor prankqueans\n",
    CORPUS[1000:1600],
]
FAMILIES = [
    "llama", "llama, biases", "llama, tied", "llama, wide heads", "llama, no groups", "llama, llama3", "llama, linear",
    "mistral", "mistral, window", "qwen2", "qwen2, tied", "qwen3", "qwen3, wide heads",
]  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_the_export_for_transformers(make, name):
    made = make(name)
    ids = [*range(3, 10), made.id_map.first_new_id, made.id_map.n_ids - 1, 40]  # within the window

    model = LlamaCpp(made.write("f32"))
    found = model.logits(ids)

    expected = made.logits(ids).numpy()
    assert np.abs(found - expected).max() < 2e-3 * np.abs(expected).max()
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()


@pytest.mark.parametrize("pattern", ["_LLAMA3", "_QWEN2", "_TEKKEN"])
def test_texts_are_cut_as_by_the_exported_tokenizer(make, pattern):
    made = make("llama", patterned_tokenizer(CORPUS, getattr(patterns, pattern)))
    tokenizer = AutoTokenizer.from_pretrained(made.folder)

    model = LlamaCpp(made.write("q8_0"))
    for text in TEXTS:
        assert model.ids(text, special=True) == tokenizer(text)["input_ids"], text


@pytest.mark.parametrize("make_tokenizer", [None, metaspace_tokenizer])
def test_elsewhere_whole_words_and_text_without_them_are_cut_so_too(make, make_tokenizer):
    made = make("llama", make_tokenizer and make_tokenizer(CORPUS, 2000))
    tokenizer = AutoTokenizer.from_pretrained(made.folder)

    model = LlamaCpp(made.write("f16"))
    for text in (TEXTS[0], TEXTS[2]):
        expected = tokenizer(text, add_special_tokens=False)["input_ids"]
        # without a space of its own before the text, which SentencePiece puts there
        assert model.ids(text) == expected[len(expected) - len(model.ids(text)) :], text


def test_a_new_word_is_one_token_and_comes_out_as_it_went_in(make):
    made = make("qwen2", patterned_tokenizer(CORPUS, patterns._QWEN2))
    model = LlamaCpp(made.write("q8_0"))
    for entry in made.id_map.new:
        assert model.ids(f" {entry.word}") == [entry.id]
        assert model.text(entry.id) == f" {entry.word}"
