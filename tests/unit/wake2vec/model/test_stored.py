"""A model that is published in 4 bits is placed as it is, and is read as whole weights where that is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tests.unit.wake2vec.model.test_outline import IDS, logits_of, publish
from wake2vec.contract.errors import ModelError
from wake2vec.model.load import load_base
from wake2vec.model.published_files import Origin, PublishedFiles
from wake2vec.model.quantise import Nf4Weight, is_quantised
from wake2vec.model.stored import Dequantised, parts_of

PLACE = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    source = publish(
        tmp_path / "source", "qwen2", hidden_size=64, head_dim=16, intermediate_size=128, tie_word_embeddings=False
    )
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    model = AutoModelForCausalLM.from_pretrained(source, quantization_config=settings, dtype=torch.float32)
    model.save_pretrained(tmp_path / "packed")
    return tmp_path / "packed"


@pytest.mark.parametrize("load", ["nf4", "fp32"])
def test_it_computes_what_the_library_makes_of_it(packed: Path, load: str) -> None:
    model, _ = load_base(str(packed), load=load, device="cpu")
    reference: Any = AutoModelForCausalLM.from_pretrained(packed, dtype=torch.float32).dequantize()

    torch.testing.assert_close(logits_of(model), logits_of(reference), rtol=1e-5, atol=1e-5)
    assert sum(map(is_quantised, model.modules())) == (14 if load == "nf4" else 0)
    assert int(IDS.max()) < model.config.vocab_size


@pytest.mark.parametrize("width", [32, 48, 64, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_any_width_keep_their_own_scales(width: int, dtype: torch.dtype) -> None:
    """bitsandbytes' own dequantised copy is up to half wrong on a CPU where a block reaches over a row's end."""
    weight = torch.randn(96, width, generator=torch.Generator().manual_seed(2)).to(dtype)
    codes, state = bitsandbytes.functional.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")

    near = Nf4Weight(codes, state, dtype)()

    assert (near.shape, near.dtype) == (weight.shape, dtype)
    assert (near.float() - weight.float()).norm() < 0.11 * weight.float().norm()


@pytest.mark.parametrize("kind", ["as published", "packed"])
def test_what_bitsandbytes_computes_wrong_on_a_cpu_is_refused(tmp_path: Path, kind: str) -> None:
    folder = publish(
        tmp_path / "narrow", "qwen2", hidden_size=64, head_dim=16, intermediate_size=48, tie_word_embeddings=False
    )
    if kind == "packed":
        settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=settings, dtype=torch.float32)
        model.save_pretrained(folder := tmp_path / "packed")

    with pytest.raises(ModelError, match=r"down_proj: its rows of 48 values .*set model.load = \"fp32\""):
        load_base(str(folder), load="nf4", device="cpu")
    assert load_base(str(folder), load="fp32", device="cpu")


def test_its_codes_and_scales_are_those_of_the_file(packed: Path) -> None:
    model, _ = load_base(str(packed), load="nf4", device="cpu")
    held = load_file(packed / "model.safetensors")
    weight = model.get_submodule(PLACE.removesuffix(".weight")).weight

    assert torch.equal(weight.data, held[PLACE])
    assert torch.equal(weight.quant_state.absmax, held[f"{PLACE}.absmax"])
    assert weight.quant_state.dtype == torch.float32


def test_its_weights_are_read_whole_with_the_shape_and_type_that_they_had(packed: Path) -> None:
    files = PublishedFiles(Origin(path=str(packed)))
    whole = Dequantised(files)

    assert PLACE in whole.names()
    assert not any(part in whole.names() for part in parts_of(PLACE, files.files))
    assert (whole.shape(PLACE), whole.dtype(PLACE)) == ((64, 128), torch.float32)
    near = load_file(packed.with_name("source") / "model.safetensors")[PLACE]
    read = torch.cat([whole.read(PLACE, 0, 10), whole.read(PLACE, 10, 64)])
    assert (read - near).norm() < 0.15 * near.norm()
