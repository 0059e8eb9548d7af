"""The streamed load against transformers' own, the choice of precision, and training through NF4 on a CPU."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, Qwen2Config
from transformers import Qwen2ForCausalLM as Qwen2

from wake2vec.contract.errors import ModelError, NoGpu
from wake2vec.model.layers.attention import NAME
from wake2vec.model.load import load_base, require_finite
from wake2vec.model.precision import Precision, choose_precision, preflight
from wake2vec.model.quantise import is_quantised

SHAPE: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
IDS = torch.randint(0, 96, (2, 16), generator=torch.Generator().manual_seed(1))


def publish(folder: Path, *, tied: bool = False, family: str = "qwen2", shards: str = "5GB") -> Path:
    torch.manual_seed(4)
    config, kind = {"qwen2": (Qwen2Config, Qwen2), "llama": (LlamaConfig, LlamaForCausalLM)}[family]
    kind(config(**SHAPE, tie_word_embeddings=tied)).save_pretrained(folder, max_shard_size=shards)
    return folder


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize("shards", ["5GB", "60KB"])
def test_a_streamed_model_is_bit_equal_to_the_published_one(
    tmp_path: Path, tied: bool, family: str, shards: str
) -> None:
    folder = publish(tmp_path, tied=tied, family=family, shards=shards)
    published = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()

    model, report = load_base(str(folder), device="cpu")

    assert report.note == ""
    assert (report.precision.load, report.precision.compute) == ("fp32", "fp32")
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) is tied
    assert torch.equal(model(input_ids=IDS).logits, published(input_ids=IDS).logits)
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in model.parameters())


def test_nf4_layers_hold_the_same_codes_as_those_of_transformers(tmp_path: Path) -> None:
    folder = publish(tmp_path)
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    theirs = AutoModelForCausalLM.from_pretrained(folder, quantization_config=settings, dtype=torch.float32)

    model, _ = load_base(str(folder), load="nf4", device="cpu")

    assert sum(map(is_quantised, model.modules())) == 14
    for ours, other in zip(model.model.layers, theirs.model.layers, strict=True):
        assert torch.equal(ours.mlp.up_proj.weight.data, other.mlp.up_proj.weight.data)
    assert type(model.lm_head) is torch.nn.Linear


def test_an_evaluation_between_does_not_stop_gradients_through_nf4(tmp_path: Path) -> None:
    model, _ = load_base(str(publish(tmp_path)), load="nf4", device="cpu")
    embedded = torch.randn(1, 8, 64)

    def gradient() -> torch.Tensor:
        x = embedded.clone().requires_grad_()
        model.model(inputs_embeds=x, use_cache=False).last_hidden_state.square().sum().backward()
        assert x.grad is not None
        return x.grad

    model.train()
    before = gradient()
    model.eval()
    with torch.no_grad():
        evaluated = model.model(inputs_embeds=embedded).last_hidden_state
    model.train()

    assert torch.equal(gradient(), before)
    assert torch.equal(evaluated, model.model(inputs_embeds=embedded).last_hidden_state)


def test_attention_is_our_sdpa_and_gives_no_mask_to_unpadded_blocks(tmp_path: Path) -> None:
    model, _ = load_base(str(publish(tmp_path)), device="cpu")
    masks = []
    layer = model.model.layers[0]
    layer.register_forward_pre_hook(lambda _m, _a, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True)

    model(input_ids=IDS)

    assert model.config._attn_implementation == NAME
    assert masks == [None]


def test_padded_and_cached_calls_agree_with_the_library(tmp_path: Path) -> None:
    folder = publish(tmp_path)
    published = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()
    model, _ = load_base(str(folder), device="cpu")
    mask = torch.ones_like(IDS)
    mask[0, :5] = 0

    padded = model(input_ids=IDS, attention_mask=mask).logits
    generated = model.generate(IDS, max_new_tokens=6, do_sample=False, pad_token_id=0)

    assert torch.equal(padded[1], published(input_ids=IDS, attention_mask=mask).logits[1])
    assert torch.equal(generated, published.generate(IDS, max_new_tokens=6, do_sample=False, pad_token_id=0))


@pytest.mark.parametrize(
    ("load", "compute", "capability", "expected"),
    [
        ("auto", "auto", None, ("fp32", "fp32")),
        ("auto", "auto", (7, 5), ("nf4", "fp16")),
        ("auto", "auto", (9, 0), ("nf4", "bf16")),
        ("nf4", "fp16", (9, 0), ("nf4", "fp16")),
        ("nf4", "auto", None, ("nf4", "fp32")),
        ("bf16", "auto", (8, 0), ("bf16", "bf16")),
        ("fp16", "auto", (7, 5), ("fp16", "fp16")),
        ("int8", "auto", (7, 5), ("int8", "fp16")),
        ("nf4", "bf16", None, ("nf4", "bf16")),
    ],
)
def test_precision_follows_the_compute_capability(
    load: str, compute: str, capability: tuple[int, int] | None, expected: tuple[str, str]
) -> None:
    chosen = choose_precision(load, compute, device="a card", capability=capability)

    assert (chosen.load, chosen.compute) == expected


@pytest.mark.parametrize(
    ("load", "compute", "capability", "reason"),
    [
        ("nf4", "bf16", (7, 5), "bf16 needs compute capability 8.0, this card has 7.5"),
        ("bf16", "auto", (6, 0), "bf16 needs compute capability 8.0"),
        ("auto", "fp16", None, "fp16 on a CPU"),
        ("int8", "auto", None, "int8 weights cannot be trained through on a CPU"),
        ("fp16", "fp32", (7, 5), "are computed in fp16, not fp32"),
    ],
)
def test_what_the_hardware_cannot_do_is_refused_with_the_reason(
    load: str, compute: str, capability: tuple[int, int] | None, reason: str
) -> None:
    with pytest.raises(NoGpu, match=reason):
        choose_precision(load, compute, device="Tesla T4", capability=capability)


def test_the_preflight_really_multiplies() -> None:
    preflight(torch.device("cpu"), Precision(load="fp32", compute="fp32"))
    with pytest.raises(NoGpu, match="product failed"):
        # a device type without kernels in this build stands for a card without kernels
        preflight(torch.device("meta"), Precision(load="fp32", compute="fp32"))


def test_a_missing_model_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"check model\.base"):
        load_base(str(tmp_path / "nothing"), device="cpu")


def test_a_torn_shard_is_named(tmp_path: Path) -> None:
    folder = publish(tmp_path)
    shard = folder / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5000])

    with pytest.raises(ModelError, match="download the model again"):
        load_base(str(folder), device="cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("load", ["fp32", "nf4"])
def test_weights_that_are_no_numbers_are_refused_with_the_tensors_name(tmp_path: Path, value: float, load: str) -> None:
    folder = publish(tmp_path / "m")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors = load_file(folder / "model.safetensors")
    tensors[name][0, 0] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match=rf"the model's tensor {re.escape(name)}: holds (NaN|infinity)"):
        load_base(str(folder), load=load, device="cpu")


def test_what_does_not_fit_the_numbers_of_the_body_is_refused() -> None:
    too_large = torch.tensor([1e6]).to(torch.float16)

    with pytest.raises(ModelError, match=r"the model's tensor norm\.weight: holds infinity in float16"):
        require_finite("norm.weight", too_large)


def test_a_file_that_is_written_to_later_does_not_change_a_living_model(tmp_path: Path) -> None:
    folder = publish(tmp_path / "m")
    model, _ = load_base(str(folder), load="fp32", device="cpu")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = folder / "model.safetensors"
    size = path.stat().st_size
    with open(path, "r+b") as file:  # in place: the same file, other bytes
        file.seek(size // 2)
        file.write(bytes(size - size // 2))

    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "tensors", "said"),
    [
        ({"hidden_act": "zelu"}, {}, "no model can be made of its config"),
        ({"num_attention_heads": 0}, {}, "no model can be made of its config"),
        ({"vocab_size": 97}, {}, r"has shape \[96, 64\] in its files, its config makes it \[97, 64\]"),
        ({}, {"model.norm.weight": torch.zeros(63)}, r"model\.norm\.weight has shape \[63\]"),
        ({}, {"model.norm.weight": torch.zeros(64, dtype=torch.int8)}, "holds whole numbers"),
    ],
)
def test_a_config_that_does_not_go_with_the_weights_is_one_message(
    tmp_path: Path, settings: dict[str, Any], tensors: dict[str, torch.Tensor], said: str
) -> None:
    folder = publish(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))
    held = load_file(folder / "model.safetensors")
    save_file(held | tensors, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match=said):
        load_base(str(folder), device="cpu")
