"""Ids that share a row compute what a matrix with every row written out computes, forward and backward."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from wake2vec.model.forms import Forms
from wake2vec.model.loss import IGNORE, blocked_cross_entropy
from wake2vec.model.split_vocabulary import SplitEmbedding, SplitHead

WIDTH, BASE, WORDS = 12, 20, 30


def forms_of(seed: int, *, n_forms: int = 3, dtype: torch.dtype = torch.float64) -> Forms:
    """Some words have a form, others have not; the last form has none."""
    generator = torch.Generator().manual_seed(seed)
    has = [torch.rand(WORDS, generator=generator) < 0.4 for _ in range(n_forms - 1)]
    words = [mask.nonzero().flatten() for mask in has] + [torch.zeros(0, dtype=torch.int64)]
    return Forms(WORDS, words, nn.Parameter(torch.randn(n_forms, WIDTH, generator=generator).to(dtype)))


def rows_of(seed: int, count: int) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 99),
    block=st.integers(1, 80),
    ignored=st.integers(0, 3),
    softcap=st.sampled_from([None, 3.0]),
    factor=st.sampled_from([1.0, 0.25]),
)
def test_loss_and_gradients_are_those_of_the_whole_matrix(
    seed: int, block: int, ignored: int, softcap: float | None, factor: float
) -> None:
    forms, base, rows = forms_of(seed), rows_of(seed + 1, BASE), nn.Parameter(rows_of(seed + 2, WORDS))
    head = SplitHead(base, BASE, rows, forms=forms, softcap=softcap, factor=factor)
    hidden = rows_of(seed + 3, 40).requires_grad_()
    targets = torch.randint(0, head.out_features, (40,), generator=torch.Generator().manual_seed(seed))
    targets[:ignored] = IGNORE

    out = blocked_cross_entropy(hidden, head, targets, vocab_block=block)
    out.scaled.backward()

    again = [one.detach().clone().requires_grad_() for one in (hidden, rows, forms.offsets)]
    added = torch.cat([again[2].new_zeros(1, WIDTH), again[2]])[forms.form_of]
    logits = again[0] @ torch.cat([base, again[1][forms.word_of] + added]).T * factor
    logits = logits if softcap is None else torch.tanh(logits / softcap) * softcap
    loss = F.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORE)
    loss.backward()
    torch.testing.assert_close(out.total, loss.detach(), rtol=1e-12, atol=1e-12)
    for mine, theirs in zip((hidden, rows, forms.offsets), again, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-12)


def test_logits_for_generation_are_those_of_the_whole_matrix() -> None:
    forms, base, rows = forms_of(1), rows_of(2, BASE), nn.Parameter(rows_of(3, WORDS))
    hidden = rows_of(4, 6).reshape(2, 3, WIDTH)

    found = SplitHead(base, BASE, rows, forms=forms)(hidden)

    assert found.shape[-1] == BASE + forms.n_ids
    torch.testing.assert_close(found, hidden @ torch.cat([base, forms.whole(rows.detach())]).T)


def test_looked_up_rows_and_their_gradients_are_those_of_the_whole_matrix() -> None:
    forms, base, rows = forms_of(5), rows_of(6, BASE), nn.Parameter(rows_of(7, WORDS))
    ids = torch.randint(0, BASE + forms.n_ids, (4, 25), generator=torch.Generator().manual_seed(8))
    weight = rows_of(9, 100).reshape(4, 25, WIDTH)

    embedding = SplitEmbedding(base.clone().requires_grad_(), BASE, rows, forms=forms)
    (embedding(ids) * weight).sum().backward()

    again = [one.detach().clone().requires_grad_() for one in (rows, forms.offsets)]
    added = torch.cat([again[1].new_zeros(1, WIDTH), again[1]])[forms.form_of]
    found = F.embedding(ids, torch.cat([base, again[0][forms.word_of] + added]))
    torch.testing.assert_close(embedding(ids), found)
    (found * weight).sum().backward()
    assert embedding.num_embeddings == BASE + forms.n_ids
    for mine, theirs in zip((rows, forms.offsets), again, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(dtype: torch.dtype) -> None:
    forms = forms_of(1, dtype=torch.float32)
    rows = nn.Parameter(rows_of(3, WORDS).float())
    head = SplitHead(rows_of(2, BASE).to(dtype), BASE, rows, forms=forms)
    hidden = rows_of(4, 50).to(dtype).requires_grad_()
    targets = torch.randint(0, head.out_features, (50,), generator=torch.Generator().manual_seed(1))

    out = blocked_cross_entropy(hidden, head, targets)
    out.scaled.backward()

    whole = torch.cat([head.base.weight.float(), forms.whole(rows.detach())])
    expected = F.cross_entropy(hidden.detach().float() @ whole.T, targets, reduction="sum")
    torch.testing.assert_close(out.total, expected, rtol=2e-2, atol=1e-2)
    assert forms.offsets.grad is not None
    assert torch.isfinite(forms.offsets.grad).all()
