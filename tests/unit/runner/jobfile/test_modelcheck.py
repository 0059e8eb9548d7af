"""A model that cannot be trained is told at enqueue, from its config, its tokenizer and the headers of its weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.jobfile.read import read_job, resolve_inputs
from tests.families import FAMILIES as TINY_FAMILIES
from tests.families import build
from tests.unit.runner.folders import P1, P2, write_jobs
from wake2vec.contract.errors import SpecError
from wake2vec.contract.models.families import FAMILIES, library_knows, longest, refusal

Change = Callable[[Path], object]


def write_config(folder: Path, **settings: Any) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **settings}))


def write_weights(folder: Path, shapes: dict[str, list[int]], name: str = "model.safetensors") -> None:
    header = json.dumps({key: {"dtype": "F32", "shape": one, "data_offsets": [0, 4]} for key, one in shapes.items()})
    (folder / name).write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(4))


def config(**settings: Any) -> Change:
    return lambda folder: write_config(folder, **settings)


def body(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content)


def renamed(name: str) -> Change:
    return lambda folder: (folder / "model.safetensors").rename(folder / name)


def longer_tokenizer(folder: Path) -> None:
    vocab = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 2, "content": "c"}]}
    (folder / "tokenizer.json").write_text(json.dumps(vocab))
    write_weights(folder, {"model.embed_tokens.weight": [2, 4]})


def far_id(folder: Path) -> None:
    vocab = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 9, "content": "c"}]}
    (folder / "tokenizer.json").write_text(json.dumps(vocab))
    write_weights(folder, {"model.embed_tokens.weight": [4, 4]})


def of_another_size(folder: Path) -> None:
    write_weights(folder, {"model.embed_tokens.weight": [6, 4]})
    write_config(folder, vocab_size=5)


def few_layers(folder: Path) -> None:
    write_weights(folder, {f"model.layers.{number}.mlp.up_proj.weight": [6, 4] for number in (0, 1)})
    write_config(folder, num_hidden_layers=3)


def no_head(folder: Path) -> None:
    write_weights(folder, {"model.embed_tokens.weight": [2, 4]})
    write_config(folder, tie_word_embeddings=False)


def torn(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-2])


def lost_shard(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}')


BAD: dict[str, tuple[Change, str]] = {
    "a list": (body("config.json", "[]"), "holds list, not an object"),
    "torn json": (body("config.json", '{"model'), "not JSON"),
    "a NUL": (body("config.json", "\0\0"), "not JSON"),
    "too deep": (body("config.json", "[" * 200_000), "not JSON"),
    "no family": (config(model_type=None), "names no model_type"),
    "unknown family": (config(model_type="zebra"), "zebra is not a family that trains here; these train: apertus"),
    "encoder and decoder": (config(model_type="t5", is_encoder_decoder=True), "an encoder and a decoder"),
    "both directions": (config(model_type="gemma3_text", use_bidirectional_attention=True), "in both directions"),
    "pictures": (config(model_type="gemma3", vision_config={}), "also reads pictures"),
    "no causal lm": (config(architectures=["LlamaForTokenClassification"]), "does not go on from a text"),
    "gptq": (config(quantization_config={"quant_method": "gptq"}), "stored as gptq"),
    "8 bits": (config(quantization_config={"load_in_8bit": True}), "stored as bitsandbytes 8-bit"),
    "pickles": (renamed("pytorch_model.bin"), "can run code; none is ever read; convert it"),
    "gguf": (renamed("model.gguf"), "a GGUF file"),
    "an adapter": (renamed("adapter_model.safetensors"), "is an adapter, not a model"),
    "a torn file": (torn, "shorter than its header says"),
    "a pointer": (body("model.safetensors", "version https://git-lfs.github.com/spec/v1"), "git lfs pull"),
    "a lost shard": (lost_shard, "model-2.safetensors is missing"),
    "a longer tokenizer": (longer_tokenizer, "its tokenizer has 3 tokens, its matrices 2 rows"),
    "a far id": (far_id, "its tokenizer has 10 tokens, its matrices 4 rows"),
    "no tokenizer": (body("tokenizer.json", '{"model": {"vocab": 5}}'), "is no tokenizer"),
    "an empty tokenizer": (body("tokenizer.json", "{}"), "is no tokenizer"),
    "torn settings of a tokenizer": (body("tokenizer_config.json", "{"), "tokenizer_config.json: not JSON"),
    "no tensors": (lambda folder: write_weights(folder, {}), "no tensors in its weights"),
    "another vocabulary": (of_another_size, "vocab_size = 5, its input matrix has 6 rows"),
    "few layers": (few_layers, "says 3 layers, its files have 2"),
    "no layers": (config(num_hidden_layers=0), "num_hidden_layers = 0, which is no number"),
    "heads in words": (config(num_attention_heads="4"), "num_attention_heads = '4', which is no number"),
    "no head": (no_head, "no output matrix"),
    "few positions": (
        config(model_type="gpt2", n_positions=32),
        "data.seq_len: 64, but the model has positions for 32",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_trained_is_one_message(tmp_path: Path, bad: str) -> None:
    write_jobs(tmp_path)
    change, said = BAD[bad]
    change(tmp_path / "model")

    with pytest.raises(SpecError) as caught:
        resolve_inputs(read_job(tmp_path / "a_p1.toml"), tmp_path, "a_p1.toml")

    assert said in str(caught.value)
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_is_refused_for_what_it_writes_itself(tmp_path: Path, family: str) -> None:
    write_jobs(tmp_path)
    build(TINY_FAMILIES[family], vocab_size=96).save_pretrained(tmp_path / "model")

    resolve_inputs(read_job(tmp_path / "a_p1.toml"), tmp_path, "a_p1.toml")


def put_apart(folder: Path) -> None:
    write_weights(folder, {"model.layers.0.mlp.experts.0.up_proj.weight": [6, 4]})
    write_config(folder, num_hidden_layers=1, model_type="mixtral")


@pytest.mark.parametrize(
    ("cards", "change", "said"),
    [
        ("1", config(), 'train.spread: "layers" are dealt out to two cards or more, and train.cards is 1; set that'),
        ("3", config(num_hidden_layers=2), "train.cards: 3 cards for the 2 layers of {model}; give at most 2"),
        ('"auto"', config(model_type="gpt2"), "several cards: gpt2 does more than its layers do; set it to"),
        ("2", config(model_type="granite", embedding_multiplier=12.0), "several cards: granite does more than"),
        ('"auto"', put_apart, "several cards: its files hold each expert by itself, and transformers"),
    ],
)
def test_layers_that_will_not_lie_on_several_cards_are_told_before_any_is_spent(
    tmp_path: Path, cards: str, change: Change, said: str
) -> None:
    write_jobs(tmp_path)
    change(tmp_path / "model")
    path = tmp_path / "a_p1.toml"
    path.write_text(P1.replace("[train]", f'[train]\ncards = {cards}\nspread = "layers"'))
    with pytest.raises(SpecError) as caught:
        resolve_inputs(read_job(path), tmp_path, "a_p1.toml")

    assert said.format(model=tmp_path / "model") in str(caught.value)
    assert len(caught.value.faults) == 1
    path.write_text(P1.replace("[train]", f"[train]\ncards = {cards}"))
    resolve_inputs(read_job(path), tmp_path, "a_p1.toml")  # samples of any model can be dealt out


def test_a_model_in_four_bits_is_taken_with_a_remark(tmp_path: Path) -> None:
    write_jobs(tmp_path)
    write_config(tmp_path / "model", quantization_config={"load_in_4bit": True, "quant_method": "bitsandbytes"})

    resolved = resolve_inputs(read_job(tmp_path / "a_p1.toml"), tmp_path, "a_p1.toml")

    assert any("stored in 4 bits" in remark for remark in resolved.remarks)


GPT2 = {f"transformer.h.0.{name}.weight": [4, 4] for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")}
QWEN = {f"model.layers.0.x.{name}_proj.weight": [4, 4] for name in ("q", "k", "v", "o", "gate", "up", "down")}


@pytest.mark.parametrize(
    ("shapes", "asked", "targets"),
    [
        (GPT2, None, ["c_attn", "c_fc", "mlp.c_proj"]),
        (GPT2, ["attn.c_proj"], ["attn.c_proj"]),
        (QWEN, None, ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]),
        (QWEN | {"model.layers.0.mlp.experts.0.w1.weight": [4, 4]}, None, ["q_proj", "k_proj", "v_proj"]),
    ],
)
def test_the_default_targets_are_those_of_the_family(
    tmp_path: Path, shapes: dict[str, list[int]], asked: list[str] | None, targets: list[str]
) -> None:
    write_jobs(tmp_path)
    write_weights(tmp_path / "model", shapes)
    lora = "" if asked is None else f"[lora]\ntargets = {json.dumps(asked)}\n"
    (tmp_path / "a_p2.toml").write_text(P2 + lora)

    resolved = resolve_inputs(read_job(tmp_path / "a_p2.toml"), tmp_path, "a_p2.toml")

    assert resolved.job.lora.targets == targets


def test_targets_that_a_model_lacks_are_told_with_those_that_it_has(tmp_path: Path) -> None:
    write_jobs(tmp_path)
    write_weights(tmp_path / "model", GPT2)
    (tmp_path / "a_p2.toml").write_text(P2 + '[lora]\ntargets = ["c_attn", "q_proj"]\n')

    with pytest.raises(SpecError, match=r"lora.targets: the model has no q_proj; it has: c_attn, c_fc, c_proj"):
        resolve_inputs(read_job(tmp_path / "a_p2.toml"), tmp_path, "a_p2.toml")


def test_the_job_of_p1_has_no_targets_to_fit(tmp_path: Path) -> None:
    write_jobs(tmp_path)
    write_weights(tmp_path / "model", {"model.layers.0.odd.weight": [4, 4]})
    (tmp_path / "a_p1.toml").write_text(P1)

    assert resolve_inputs(read_job(tmp_path / "a_p1.toml"), tmp_path, "a_p1.toml").job.lora is None


def test_the_installed_library_knows_every_family_that_trains() -> None:
    assert [family for family in FAMILIES if not library_knows(family)] == []
    assert not library_knows("zebra")


def test_code_that_a_model_brings_is_the_user_s_own_choice() -> None:
    table = {"model_type": "zebra", "auto_map": {"AutoModelForCausalLM": "zebra.Zebra"}}

    assert refusal(table) is not None
    assert refusal(table, trust_remote_code=True) is None


def test_only_a_table_of_positions_limits_a_text() -> None:
    assert longest({"model_type": "gpt2", "n_positions": 1024}) == 1024
    assert longest({"model_type": "llama", "max_position_embeddings": 2048}) is None
