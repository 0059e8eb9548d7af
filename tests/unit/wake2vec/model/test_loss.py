"""Blocked cross-entropy against F.cross_entropy in fp64, on many cuts of tokens and vocabulary."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from wake2vec.model.loss import IGNORE, blocked_cross_entropy, default_vocab_block
from wake2vec.model.split_vocabulary import SplitHead

WIDTH = 16


def head_of(
    base: int = 50,
    new: int = 21,
    *,
    dtype: torch.dtype = torch.float64,
    bias: bool = False,
    softcap: float | None = None,
) -> SplitHead:
    generator = torch.Generator().manual_seed(base + new)
    weight = torch.randn(base + 3, WIDTH, generator=generator, dtype=torch.float64).to(dtype)  # 3 rows of padding
    rows = nn.Parameter(torch.randn(new, WIDTH, generator=generator, dtype=torch.float64))
    shift = torch.randn(base + 3, generator=generator, dtype=torch.float64) if bias else None
    return SplitHead(weight, base, rows, bias=shift, softcap=softcap)


def tokens_of(count: int, vocabulary: int, *, ignored: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    hidden = torch.randn(count, WIDTH, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, vocabulary, (count,), generator=generator)
    targets[:ignored] = IGNORE
    return hidden, targets


def reference(
    head: SplitHead, hidden: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Summed loss, gradient of the hidden states and of the new rows, with the matrix made whole."""
    hidden = hidden.detach().requires_grad_()
    rows = head.rows.detach().requires_grad_()
    logits = hidden @ torch.cat([head.base.weight[: head.first_new_id].double(), rows]).T
    if head.bias is not None:
        logits = logits + torch.cat([head.bias[: head.first_new_id], torch.zeros(rows.shape[0], dtype=torch.float64)])
    if head.softcap is not None:
        logits = torch.tanh(logits / head.softcap) * head.softcap
    loss = F.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORE)
    loss.backward()
    return loss.detach(), hidden.grad, rows.grad  # type: ignore[return-value]


@settings(max_examples=60, deadline=None)
@given(
    base=st.integers(1, 60),
    new=st.integers(1, 40),
    block=st.integers(1, 80),
    tokens=st.integers(1, 24),
    ignored=st.integers(0, 3),
    bias=st.booleans(),
    softcap=st.sampled_from([None, 5.0]),
)
def test_loss_and_gradients_are_exact_on_every_cut_of_the_vocabulary(
    base: int, new: int, block: int, tokens: int, ignored: int, bias: bool, softcap: float | None
) -> None:
    head = head_of(base, new, bias=bias, softcap=softcap)
    hidden, targets = tokens_of(tokens, base + new, ignored=ignored)
    loss, hidden_gradient, row_gradient = reference(head, hidden, targets)

    hidden.requires_grad_()
    out = blocked_cross_entropy(hidden, head, targets, vocab_block=block)
    out.scaled.backward()

    torch.testing.assert_close(out.total, loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(hidden.grad, hidden_gradient, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(head.rows.grad, row_gradient, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_cutting_the_tokens_changes_nothing(parts: int) -> None:
    head = head_of()
    hidden, targets = tokens_of(20, 71, ignored=2)
    loss, _, row_gradient = reference(head, hidden, targets)

    total = sum(
        blocked_cross_entropy(some.requires_grad_(), head, wanted).total
        for some, wanted in zip(hidden.chunk(parts), targets.chunk(parts), strict=True)
    )

    torch.testing.assert_close(total, loss)
    torch.testing.assert_close(head.rows.grad, row_gradient)


def test_evaluation_gives_each_token_its_nats_and_leaves_no_gradient() -> None:
    head = head_of()
    hidden, targets = tokens_of(12, 71, ignored=2)

    with torch.no_grad():
        out = blocked_cross_entropy(hidden, head, targets, vocab_block=7)

    logits = hidden @ torch.cat([head.base.weight[:50], head.rows.detach()]).T
    torch.testing.assert_close(out.token_nll, F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORE))
    assert head.rows.grad is None


def test_training_and_evaluation_report_the_same_loss() -> None:
    head = head_of(dtype=torch.float32)
    hidden, targets = tokens_of(12, 71)

    trained = blocked_cross_entropy(hidden.float().requires_grad_(), head, targets)
    with torch.no_grad():
        evaluated = blocked_cross_entropy(hidden.float(), head, targets)

    assert torch.equal(trained.token_nll, evaluated.token_nll)


def test_a_frozen_row_set_gets_no_gradient() -> None:
    head = head_of()
    head.rows.requires_grad_(False)
    hidden, targets = tokens_of(5, 71)

    blocked_cross_entropy(hidden.requires_grad_(), head, targets).scaled.backward()

    assert head.rows.grad is None
    assert hidden.grad is not None


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 2e-3), (torch.bfloat16, 1.5e-2)])
def test_half_precision_stays_within_its_rounding_under_a_loss_scale(dtype: torch.dtype, limit: float) -> None:
    head = head_of(base=3000, new=900, dtype=dtype)
    head.rows.data = head.rows.data.to(dtype).float()
    hidden, targets = tokens_of(64, 3900)
    hidden = hidden.to(dtype)
    loss, hidden_gradient, row_gradient = reference(head, hidden.double(), targets)
    scale = 2.0**16 / 4096

    half = hidden.clone().requires_grad_()
    out = blocked_cross_entropy(half, head, targets, scale=scale, vocab_block=512)
    out.scaled.backward()

    assert out.total.dtype == torch.float32
    assert head.rows.grad is not None
    assert head.rows.grad.dtype == torch.float32
    assert half.grad is not None
    assert abs(out.total.double() / loss - 1) < 1e-5
    assert (head.rows.grad.double() / scale - row_gradient).norm() / row_gradient.norm() < limit
    assert (half.grad.double() / scale - hidden_gradient).norm() / hidden_gradient.norm() < limit


def test_without_the_scale_small_probabilities_would_vanish_in_fp16() -> None:
    head = head_of(base=3000, new=900, dtype=torch.float16)
    head.rows.data = head.rows.data.half().float() * 0.01  # a flat distribution: each p is near 2.6e-4
    head.base.weight.data *= 0.01
    hidden, targets = tokens_of(8, 100)
    hidden = hidden.half()

    def row_gradient(scale: float) -> torch.Tensor:
        head.rows.grad = None
        blocked_cross_entropy(hidden.clone().requires_grad_(), head, targets, scale=scale).scaled.backward()
        assert head.rows.grad is not None
        return head.rows.grad / scale

    _, _, expected = reference(head, hidden.double(), targets)
    assert (row_gradient(16.0) - expected).norm() / expected.norm() < 2e-3
    assert row_gradient(1 / 4096).norm() < 0.999 * expected.norm()


def test_logits_far_outside_the_range_of_exp_stay_finite() -> None:
    head = head_of(dtype=torch.float32)
    head.rows.data = head.rows.data.float() * 1000
    hidden, targets = tokens_of(6, 71)

    out = blocked_cross_entropy(hidden.float().requires_grad_(), head, targets)

    assert torch.isfinite(out.token_nll).all()


def test_blocks_shrink_as_tokens_grow_and_stay_aligned() -> None:
    assert default_vocab_block(256) == 8192
    assert default_vocab_block(4096) == 4096
    assert default_vocab_block(1 << 20) == 1024
    assert default_vocab_block(3000) % 64 == 0
