"""What lies in a loaded model is compared with its files in whole: no tensor is swapped, turned, bent or left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tests.unit.wake2vec.model.test_outline import publish
from wake2vec.contract.errors import ModelError
from wake2vec.model import bare, load
from wake2vec.model.load import load_base
from wake2vec.model.placed import AT_ONCE, check_placed, check_whole
from wake2vec.model.published_files import Origin, PublishedFiles
from wake2vec.model.stored import Packed, parts_of

SQUARE, OTHER = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight"
Fault = Callable[[Tensor, Tensor], Tensor]
FAULTS: dict[str, Fault] = {
    "another of its shape": lambda _one, other: other,
    "one element": lambda one, _other: one.index_put((torch.tensor([63]), torch.tensor([62])), one[63, 62] + one.std()),
    "turned": lambda one, _other: one.t().contiguous(),
    "of another scale": lambda one, _other: one * 1.5,
    "two rows exchanged": lambda one, _other: one[torch.tensor([1, 0, *range(2, 64)])],
}
HELD = {"fp32": ("fp32", "fp32"), "bf16": ("bf16", "bf16"), "nf4": ("nf4", "fp32"), "nf4 in bf16": ("nf4", "bf16")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return publish(tmp_path / "m", "qwen2", hidden_size=64, head_dim=16, intermediate_size=128)


@pytest.fixture
def packed(folder: Path) -> Path:
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=settings, dtype=torch.float32)
    model.save_pretrained(folder.with_name("packed"))
    return folder.with_name("packed")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("held", HELD)
def test_a_tensor_that_came_in_wrong_ends_the_load(
    folder: Path, monkeypatch: pytest.MonkeyPatch, held: str, fault: str
) -> None:
    """Whatever places a tensor bends one of them on its way."""
    other = PublishedFiles(Origin(path=str(folder))).whole(OTHER)
    spoil(monkeypatch, other, FAULTS[fault])
    load, compute = HELD[held]

    with pytest.raises(ModelError, match=r"_proj\.weight: does not lie in the model as its file has it"):
        load_base(str(folder), load=load, compute=compute, device="cpu")


def spoil(monkeypatch: pytest.MonkeyPatch, other: Tensor, fault: Fault) -> None:
    import accelerate.utils

    plain, quantised = accelerate.utils.set_module_tensor_to_device, load.fill_linear

    def set_tensor(model: nn.Module, name: str, device: Any, value: Tensor, dtype: torch.dtype) -> None:
        value = fault(value, other.to(value.dtype)) if name == SQUARE else value
        plain(model, name, device, value=value, dtype=dtype)

    def fill(module: nn.Module, weight: Tensor, *more: Any) -> None:
        quantised(module, fault(weight, other) if weight.shape == (64, 64) else weight, *more)

    monkeypatch.setattr(accelerate.utils, "set_module_tensor_to_device", set_tensor)
    monkeypatch.setattr(load, "fill_linear", fill)


PARTS = ("", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".quant_state.bitsandbytes__nf4")


@pytest.mark.parametrize("part", PARTS)
def test_a_packed_weight_is_compared_with_each_of_its_parts(packed: Path, part: str) -> None:
    files = PublishedFiles(Origin(path=str(packed)))
    tensors = {name: files.whole(name) for name in (SQUARE, *parts_of(SQUARE, files.files))}
    model, _ = load_base(str(packed), load="nf4", device="cpu")
    owner = model.get_submodule(SQUARE.removesuffix(".weight"))
    check_placed(SQUARE, as_packed(tensors), owner, "weight")

    changed = tensors[SQUARE + part].clone()
    if changed.dtype == torch.uint8 and "quant_state" in part:
        changed = torch.tensor(
            list(bytes(changed.tolist()).replace(b'"blocksize": 64', b'"blocksize": 65')), dtype=torch.uint8
        )
    else:
        changed.view(-1)[-1] += 1
    with pytest.raises(ModelError, match="does not lie in the model"):
        check_placed(SQUARE, as_packed({**tensors, SQUARE + part: changed}), owner, "weight")


def as_packed(tensors: dict[str, Tensor]) -> Packed:
    return Packed(codes=tensors[SQUARE], parts={name: part for name, part in tensors.items() if name != SQUARE})


def test_a_square_weight_that_gpt2_has_on_its_side_is_known_from_its_transpose(tmp_path: Path) -> None:
    folder = publish(tmp_path, "gpt2", hidden_size=64, n_embd=64)
    name = "transformer.h.0.attn.c_proj.weight"
    model, _ = load_base(str(folder), load="nf4", device="cpu")
    published = PublishedFiles(Origin(path=str(folder))).whole(name)
    owner = model.get_submodule(name.removesuffix(".weight"))

    check_placed(name, published, owner, "weight")
    with pytest.raises(ModelError, match="does not lie"):
        check_placed(name, published.t(), owner, "weight")


def test_the_last_value_of_a_tensor_in_several_stretches_is_compared_too() -> None:
    owner = nn.Module()
    owner.weight = nn.Parameter(torch.zeros(AT_ONCE + 3, dtype=torch.bfloat16), requires_grad=False)
    check_placed("w", torch.zeros(AT_ONCE + 3), owner, "weight")
    owner.weight[-1] = 1e-30

    with pytest.raises(ModelError, match="does not lie"):
        check_placed("w", torch.zeros(AT_ONCE + 3), owner, "weight")


@pytest.mark.parametrize("tied", [True, False])
def test_a_tie_is_what_the_files_say(tmp_path: Path, tied: bool) -> None:
    folder = publish(tmp_path, "qwen2", tie_word_embeddings=tied)
    model, _ = load_base(str(folder), device="cpu")
    outline = bare.read_outline(PublishedFiles(Origin(path=str(folder))), model.config)
    check_whole(model, outline)

    own = nn.Parameter(model.lm_head.weight.clone(), requires_grad=False)
    model.lm_head.weight = own if tied else model.get_input_embeddings().weight
    with pytest.raises(ModelError, match=r"does not share the values|which its files keep apart"):
        check_whole(model, outline)


def test_a_tensor_without_values_ends_the_load(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = load._put
    monkeypatch.setattr(
        load, "_put", lambda model, name, *rest: 0.0 if name == SQUARE else original(model, name, *rest)
    )

    with pytest.raises(ModelError, match=r"q_proj\.weight: was left without values"):
        load_base(str(folder), device="cpu")
