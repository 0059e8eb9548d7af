"""Plans put into effect and taken back: where the matrices lie, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from wake2vec.contract.plan import Plan
from wake2vec.model.layers.attention import register_attention
from wake2vec.model.loss import blocked_cross_entropy
from wake2vec.model.new_rows import InstalledRows, install_rows
from wake2vec.model.placement import HostRows, apply_plan
from wake2vec.model.split_vocabulary import PlainRows

CPU = torch.device("cpu")
PLAN = Plan(micro_batch=2, layers="autograd")


def installed(*, tied: bool) -> tuple[Any, InstalledRows]:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        attn_implementation=register_attention(),
    )
    model = LlamaForCausalLM(config).requires_grad_(False)
    rows = torch.randn(20, 64) * 0.05
    return model, install_rows(model, first_new_id=90, mode="shared" if tied else "separate", input_rows=rows)


def step(model: Any, rows: InstalledRows) -> tuple[Tensor, list[Tensor]]:
    ids = torch.randint(0, 110, (2, 13), generator=torch.Generator().manual_seed(1))
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    out = blocked_cross_entropy(hidden.flatten(0, 1), rows.head, ids[:, 1:].flatten(), scale=1 / 24)
    out.scaled.backward()
    grads = [parameter.grad.clone() for parameter in rows.trainable().values() if parameter.grad is not None]
    for parameter in rows.trainable().values():
        parameter.grad = None
    return out.total, grads


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_on_the_host_changes_no_bit(tied: bool) -> None:
    model, rows = installed(tied=tied)
    total, grads = step(model, rows)

    placed = apply_plan(model, rows, replace(PLAN, embedding="host"), CPU)

    assert placed.plan.embedding == "host"
    assert isinstance(rows.embedding.base, HostRows)
    after, after_grads = step(model, rows)
    assert torch.equal(after, total)
    assert all(torch.equal(one, two) for one, two in zip(grads, after_grads, strict=True))


@pytest.mark.parametrize("tied", [True, False])
def test_every_plan_can_be_taken_back_to_the_published_bits(tied: bool) -> None:
    model, rows = installed(tied=tied)
    weight = rows.head.base.block(0, 90).clone()
    total, _ = step(model, rows)

    for plan in (replace(PLAN, embedding="host", layers="lean"), PLAN):
        placed = apply_plan(model, rows, plan, CPU)
        assert placed.plan == plan

    assert torch.equal(rows.head.base.block(0, 90), weight)
    assert type(rows.embedding.base) is PlainRows
    assert torch.equal(step(model, rows)[0], total)


def test_base_matrices_that_train_are_left_alone_and_that_is_said() -> None:
    model, rows = installed(tied=False)
    rows.head.base.weight.requires_grad_()  # type: ignore[union-attr]
    rows.embedding.base.weight.requires_grad_()  # type: ignore[union-attr]

    placed = apply_plan(model, rows, replace(PLAN, embedding="host"), CPU)

    assert placed.plan == PLAN
    assert "stays on the device" in placed.notes[0]


def test_moving_the_model_leaves_the_host_rows_on_the_host_and_unconverted() -> None:
    model, rows = installed(tied=False)
    apply_plan(model, rows, replace(PLAN, embedding="host"), CPU)

    model.double()

    assert rows.embedding.base.dtype == torch.float32


def test_frozen_rows_train_no_more_and_shrink() -> None:
    _, rows = installed(tied=False)

    rows.freeze(torch.float16)

    assert {parameter.dtype for parameter in rows.everything().values()} == {torch.float16}
    assert not any(parameter.requires_grad for parameter in rows.everything().values())


@pytest.mark.parametrize("tied", [True, False])
def test_rows_that_rest_are_held_like_the_base_rows_and_come_back(tied: bool) -> None:
    model, rows = installed(tied=tied)
    rows.freeze(torch.float32)
    ids = torch.tensor([[1, 95, 30, 109]])
    expected = model(input_ids=ids).logits

    apply_plan(model, rows, replace(PLAN, embedding="host"), CPU)

    assert isinstance(rows.embedding.resting, HostRows)
    assert torch.equal(model(input_ids=ids).logits, expected)
    apply_plan(model, rows, PLAN, CPU)
    assert torch.equal(model(input_ids=ids).logits, expected)
