"""Generation: drawn like the library would, the same every time, and described truly."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from wake2vec.contract.rundir import RunDir
from wake2vec.contract.spec import JOB_SPEC
from wake2vec.model.new_rows import install_rows
from wake2vec.show.samples import read_samples
from wake2vec.use.generate import typed, write_samples
from wake2vec.use.sampling import Sampling, choose, continue_text

BASE = ["<unk>", "riverrun", "past", "eve", "and", "adam", "from", "swerve", "of", "shore", "to", "bend"]
NEW = ["bababad", "gracehoper", "prankquean"]
JOB = JOB_SPEC.validate_python(
    {
        "name": "tiny",
        "phase": "p1",
        "model": {"base": "tiny"},
        "vocab": {"lexicon": "lexicon"},
        "data": {"corpus": "wake.txt"},
        "train": {"steps": 4, "lr": 0.1},
        "evaluate": {"prompt": "riverrun past", "samples": 3},
    }
)


def sample(model: Any, tokenizer: Any, prompt: str, *, seed: int = 0, max_new_tokens: int) -> str:
    return continue_text(model, tokenizer, prompt, Sampling(max_new_tokens=max_new_tokens), seed=seed).text


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: id for id, word in enumerate(BASE + NEW)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20,  # eight rows of padding, of which the new tokens take three
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.5,
    )
    model = LlamaForCausalLM(config)
    install_rows(model, first_new_id=len(BASE), mode="shared", input_rows=torch.randn(len(NEW), 16))
    return model.train()


@pytest.mark.parametrize("temperature", [0.5, 0.9, 1.2])
@pytest.mark.parametrize(
    ("top_k", "top_p", "penalty"), [(50, 0.92, 1.15), (5, 1.0, 1.0), (300, 0.5, 1.3), (0, 0.8, 1.0)]
)
def test_tokens_come_as_often_as_the_librarys_warpers_say(
    temperature: float, top_k: int, top_p: float, penalty: float
) -> None:
    torch.manual_seed(1)
    logits, seen = torch.randn(300, dtype=torch.float64) * 3, [3, 5, 5, 299]
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen]), logits[None].clone())
    expected = TemperatureLogitsWarper(temperature)(None, expected)
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    expected = TopPLogitsWarper(top_p)(None, expected) if top_p < 1 else expected
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=penalty)

    grid = 4000  # an even grid of chances instead of luck: shares come out to a grid step
    drawn = torch.tensor([choose(logits, seen, sampling, (place + 0.5) / grid) for place in range(grid)])

    shares = torch.bincount(drawn, minlength=300) / grid
    assert torch.allclose(shares, expected.softmax(-1)[0].float(), atol=1.01 / grid)


def test_no_temperature_takes_the_likeliest() -> None:
    assert choose(torch.tensor([0.0, 3.0, 1.0]), [], Sampling(temperature=0), 0.99) == 1


def test_a_chance_of_nearly_one_stays_within_what_is_kept() -> None:
    logits = torch.tensor([5.0, 5.0, -50.0], dtype=torch.float64)

    assert choose(logits, [], Sampling(top_k=0, top_p=0.9, temperature=1.0), 1 - 1e-16) in (0, 1)


def test_the_same_seed_gives_the_same_text_and_leaves_global_randomness_alone(model: Any, tokenizer: Any) -> None:
    state = torch.random.get_rng_state()

    first = sample(model, tokenizer, "riverrun past", seed=7, max_new_tokens=20)

    assert sample(model, tokenizer, "riverrun past", seed=7, max_new_tokens=20) == first
    assert sample(model, tokenizer, "riverrun past", seed=8, max_new_tokens=20) != first
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training


def test_surprisal_is_that_of_the_model_run_over_the_finished_text(model: Any, tokenizer: Any) -> None:
    text = continue_text(model, tokenizer, "riverrun past", Sampling(max_new_tokens=15), seed=1)

    ids = torch.tensor([[*tokenizer("riverrun past")["input_ids"], *text.ids]])
    with torch.no_grad():
        shares = model.eval()(input_ids=ids).logits[0].log_softmax(-1)  # [tokens, V]
    expected = [-float(shares[place - 1, ids[0, place]]) for place in range(2, ids.shape[1])]
    assert list(text.nats) == pytest.approx(expected, abs=1e-4)
    assert len(text.ids) == 15


def test_it_ends_at_the_end_token(model: Any, tokenizer: Any) -> None:
    text = continue_text(model, tokenizer, "riverrun", Sampling(max_new_tokens=50, repetition_penalty=1.0), seed=1)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(text.ids[3])

    again = continue_text(model, tokenizer, "riverrun", Sampling(max_new_tokens=50, repetition_penalty=1.0), seed=1)

    assert again.ended == "end"
    assert again.ids == text.ids[: text.ids.index(text.ids[3])]


def test_logits_that_are_not_finite_end_a_text_and_no_program(model: Any, tokenizer: Any) -> None:
    nn.init.constant_(model.model.norm.weight, float("nan"))

    text = continue_text(model, tokenizer, "riverrun", Sampling(), seed=1)

    assert (text.text, text.ended, text.mean_surprisal) == ("", "not finite", None)


def test_an_empty_prompt_still_gives_text(model: Any, tokenizer: Any) -> None:
    assert sample(model, tokenizer, "", max_new_tokens=5)


def test_samples_are_written_with_their_figures(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    run = RunDir(root=tmp_path)

    path = write_samples(
        run, model, tokenizer, JOB, 4, first_new_id=12, corpus="riverrun past eve and adam", max_new_tokens=30
    )

    rows = read_samples(run)
    assert [row.number for row in rows] == [0, 1, 2]
    assert len({row.sampling["temperature"] for row in rows}) == 3
    for row in rows:
        written = row.text.split()
        assert row.tokens == 30
        assert row.new_tokens == sum(word in NEW for word in written)
        assert row.overlap_words is not None
        assert row.overlap in row.text
    text = path.read_text("utf-8")
    assert text.count("=== step 4") == 3
    assert "new-word share" in text


def test_a_stop_keeps_what_is_done_and_the_next_call_goes_on(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    run, calls = RunDir(root=tmp_path), iter([False] * 15 + [True] * 99)
    whole = RunDir(root=tmp_path / "whole")
    write_samples(whole, model, tokenizer, JOB, 4, first_new_id=12, max_new_tokens=10)

    write_samples(run, model, tokenizer, JOB, 4, first_new_id=12, max_new_tokens=10, should_stop=lambda: next(calls))
    kept = read_samples(run)
    path = write_samples(run, model, tokenizer, JOB, 4, first_new_id=12, max_new_tokens=10)

    assert [row.number for row in kept] == [0]
    assert path.read_bytes() == (whole.evaluation / "sample_generations.txt").read_bytes()


def test_a_chat_takes_lines_until_an_empty_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("riverrun \npast eve\n\nnot read\n"))

    assert list(typed()) == ["riverrun ", "past eve"]
    assert capsys.readouterr().out == ""
