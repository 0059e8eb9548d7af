"""The check of fp16's range: what it finds, what it does, and when it gives up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from wake2vec.contract.errors import ModelError
from wake2vec.model.fp16_range import guard_range
from wake2vec.model.layers.attention import register_attention
from wake2vec.model.layers.paths import use_layers
from wake2vec.model.loss import blocked_cross_entropy
from wake2vec.model.new_rows import InstalledRows, install_rows

IDS = torch.randint(0, 64, (2, 9), generator=torch.Generator().manual_seed(1))


def tiny(dtype: torch.dtype = torch.float32) -> tuple[Any, InstalledRows]:
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        attn_implementation=register_attention(),
    )
    model = LlamaForCausalLM(config).requires_grad_(False).to(dtype)
    return model, install_rows(model, first_new_id=60, mode="separate", input_rows=torch.randn(8, 32))


def test_a_model_within_range_is_left_as_it_is() -> None:
    model, rows = tiny()
    model.train()

    check = guard_range(model, rows, IDS)

    assert model.training
    assert 0 < check.largest < 100
    assert check.remedy == ""
    assert rows.embedding.out_dtype is None


def test_large_residuals_are_kept_in_fp32_and_the_layer_is_named() -> None:
    model, rows = tiny()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(1e8)

    check = guard_range(model, rows, IDS)

    assert "layer " in check.remedy
    assert "fp32" in check.remedy
    assert rows.embedding.out_dtype == torch.float32


def test_a_layer_that_is_not_finite_at_all_is_an_error_with_its_number() -> None:
    model, rows = tiny()
    model.model.layers[1].mlp.down_proj.weight[0, 0] = float("inf")

    with pytest.raises(ModelError, match=r"layer 1: its activations leave the range"):
        guard_range(model, rows, IDS)


def test_a_plain_half_precision_body_cannot_take_an_fp32_stream() -> None:
    model, rows = tiny(torch.bfloat16)

    with pytest.raises(ModelError, match=r"use model\.compute"):
        guard_range(model, rows, IDS, limit=1e-6)


@pytest.mark.parametrize("path", ["lean", "checkpoint"])
def test_an_fp32_stream_over_a_half_precision_head_trains(path: Any) -> None:
    model, rows = tiny()
    rows.head.base.weight.data = rows.head.base.weight.data.bfloat16()  # type: ignore[attr-defined]
    rows.embedding.base.weight.data = rows.embedding.base.weight.data.bfloat16()  # type: ignore[attr-defined]
    rows.embedding.out_dtype = torch.float32
    use_layers(model, path)

    hidden = model.model(input_ids=IDS, use_cache=False).last_hidden_state.flatten(0, 1)
    blocked_cross_entropy(hidden, rows.head, IDS.flatten()).scaled.backward()

    assert hidden.dtype == torch.float32
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in rows.trainable().values())
    assert model(input_ids=IDS).logits.shape[-1] == 68
