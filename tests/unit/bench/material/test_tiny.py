"""The tiny model and the words of its lexicon."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.material.tiny import Shape, excerpt, frequent_broken_words, make_model, make_tokenizer, save, train

TEXT = ("the river ran past the church, and prankquean came. " * 30 + "\n\n") * 20
JOBS = Path(__file__).resolve().parents[4] / "jobs" / "tiny"


@pytest.mark.parametrize(
    "shape",
    [
        Shape(vocabulary=300),
        Shape(vocabulary=300, tied=False),
        Shape(make="qwen2", vocabulary=300, matrix_rows=512, tied=False),
    ],
)
def test_models_of_every_shape_are_saved_and_loaded(shape: Shape, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    tokenizer = make_tokenizer(TEXT, shape.vocabulary)
    save(make_model(tokenizer, shape), tokenizer, tmp_path)

    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)

    weight, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert weight.shape[0] == (shape.matrix_rows or len(tokenizer))
    assert (weight is head) == shape.tied


def test_training_lowers_the_loss() -> None:
    tokenizer = make_tokenizer(TEXT, 300)
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    shape = Shape(vocabulary=300)

    first = train(make_model(tokenizer, shape), ids, steps=1, length=32)
    last = train(make_model(tokenizer, shape), ids, steps=40, length=32)

    assert last < first - 1


def test_an_excerpt_and_its_rest_are_the_text() -> None:
    paragraphs = [f"paragraph {number}" for number in range(100)]

    inside, outside = excerpt("\n\n".join(paragraphs) + "\n\n", 200)

    assert inside.split("\n\n")[0] == "paragraph 34"
    assert not set(inside.split("\n")) & (set(outside.split("\n")) - {""})
    assert len(inside.split()) + len(outside.split()) == 200


def test_words_that_cost_most_tokens_come_first() -> None:
    tokenizer = make_tokenizer("the river ran " * 100, 280)

    words = frequent_broken_words("prankquean " * 5 + "earwicker " * 9 + "the " * 50 + "seldom " * 2, tokenizer, 5)

    assert words == ["earwicker", "prankquean"]


def test_the_committed_job_material_fits_together() -> None:
    from wake2vec.contract.words.lexicon import read_lexicon
    from wake2vec.vocab.inject import load_tokenizer

    words = read_lexicon(JOBS / "lexicon.txt")
    known = load_tokenizer(JOBS / "model").get_vocab()
    text = (JOBS / "corpus.txt").read_text(encoding="utf-8")

    assert not words.remarks()
    assert len(words.words) >= 100
    assert all(word in text and word not in known for word in words.words)
    assert any("-" in word for word in words.words)
    assert any(not word.isascii() for word in words.words)
