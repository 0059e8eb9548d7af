"""Keyed dropout: what the mask depends on, what it does not, and that it looks random."""

from __future__ import annotations

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.checkpoint import checkpoint

from wake2vec.model.dropout import KeyedDropout, StepKey, drop_only_keyed, key_dropouts


def masks(
    *,
    seed: int = 1,
    step: int = 0,
    name: str = "q",
    first: int = 0,
    samples: int = 8,
    length: int = 64,
    offset: int = 0,
    features: int = 512,
    p: float = 0.1,
) -> torch.Tensor:
    context = StepKey()
    ids = torch.arange(first, first + samples)
    context.set(step=step, sample_ids=ids, position_offset=torch.full_like(ids, offset))
    return KeyedDropout(p, name=name, context=context, seed=seed)(torch.ones(samples, length, features))


def test_a_body_that_drops_by_itself_trains_without() -> None:
    body = nn.Sequential(nn.Dropout(0.5), KeyedDropout(0.5, name="q", context=StepKey(), seed=1))

    drop_only_keyed(body.train())

    assert [module.training for module in body] == [False, True]


def test_the_mask_of_a_sample_is_the_same_in_any_micro_batch() -> None:
    whole = masks(samples=8)

    halves = torch.cat([masks(first=0, samples=4), masks(first=4, samples=4)])

    assert torch.equal(whole, halves)


def test_a_block_split_in_two_keeps_its_mask() -> None:
    whole = masks(length=64)

    halves = torch.cat([masks(length=32), masks(length=32, offset=32)], dim=1)

    assert torch.equal(whole, halves)


@pytest.mark.parametrize(
    "other", [{"seed": 2}, {"step": 1}, {"name": "k"}, {"first": 8}, {"offset": 64}, {"first": 1 << 33}]
)
def test_each_part_of_the_key_changes_the_mask_and_leaves_it_independent(other: dict[str, int | str]) -> None:
    one, two = masks() == 0, masks(**other) == 0  # type: ignore[arg-type]

    both = (one & two).float().mean().item()

    # 262,144 elements at p^2 = 0.01: standard error 1.9e-4
    assert both == pytest.approx(0.01, abs=1e-3)


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5])
def test_the_share_of_dropped_elements_is_p(p: float) -> None:
    x = masks(p=p, samples=16, length=128)

    error = math.sqrt(p * (1 - p) / x.numel())
    assert (x == 0).double().mean().item() == pytest.approx(p, abs=5 * error + 1 / 65536)
    assert x.max().item() == pytest.approx(1 / (1 - p), rel=1e-6)


def test_features_positions_and_samples_are_dropped_independently() -> None:
    dropped = (masks(p=0.5, samples=64, length=64, features=513) == 0).double() - 0.5
    error = 0.25 / math.sqrt(dropped.numel())

    for dim in (0, 1, 2):
        for lag in (1, 2, 7):
            product = dropped.narrow(dim, lag, dropped.shape[dim] - lag) * dropped.narrow(
                dim, 0, dropped.shape[dim] - lag
            )
            assert abs(product.mean().item()) < 5 * error
        others = [d for d in (0, 1, 2) if d != dim]
        count = dropped.numel() // dropped.shape[dim]
        # every single feature, position and sample has the rate, not only their mean
        assert dropped.mean(dim=others).abs().max().item() < 5.5 * 0.5 / math.sqrt(count)


def test_eval_mode_is_the_identity() -> None:
    layer = KeyedDropout(0.5, name="q", context=StepKey(), seed=1).eval()
    x = torch.randn(2, 3, 4)

    assert layer(x) is x


def test_the_gradient_is_masked_like_the_value_and_survives_recomputation() -> None:
    context = StepKey()
    context.set(step=3, sample_ids=torch.tensor([5, 9]))
    layer = KeyedDropout(0.3, name="q", context=context, seed=1)
    x = torch.randn(2, 16, 33, dtype=torch.float64, requires_grad=True)

    layer(x).sum().backward()
    plain = x.grad
    x.grad = None
    checkpoint(layer, x, use_reentrant=False).sum().backward()

    assert torch.equal(plain, layer(torch.ones_like(x)).detach())
    assert torch.equal(plain, x.grad)


def test_tokens_that_a_layer_flattens_keep_their_mask_and_others_are_refused() -> None:
    context = StepKey()
    context.set(step=3, sample_ids=torch.arange(4))
    dropout = KeyedDropout(0.5, name="fc1", context=context, seed=1)
    whole = dropout(torch.ones(4, 16, 8))

    assert torch.equal(dropout(torch.ones(64, 8)), whole.flatten(0, 1))
    with pytest.raises(RuntimeError, match="expected"):
        dropout(torch.ones(60, 8))  # tokens that were picked out, as for an expert: nobody knows which


def test_a_forward_pass_without_a_key_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"StepKey.set was not called"):
        KeyedDropout(0.5, name="q", context=StepKey(), seed=1)(torch.ones(1, 2, 3))


def test_the_dropouts_of_peft_are_replaced_and_named_by_their_place() -> None:
    model = nn.ModuleDict({"q_proj": nn.Linear(8, 8), "k_proj": nn.Linear(8, 8)})
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj", "k_proj"], lora_dropout=0.2, r=2))

    assert key_dropouts(adapted, StepKey(), seed=1) == 2

    keyed = [module for module in adapted.modules() if isinstance(module, KeyedDropout)]
    assert len({module.name for module in keyed}) == 2
    assert {module.p for module in keyed} == {0.2}
