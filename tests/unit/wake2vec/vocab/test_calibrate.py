"""New words start at the probability that their count asks for."""

from __future__ import annotations

import pytest
import torch

from wake2vec.vocab.calibrate import SMOOTHING, calibrated, constant_direction

D, BASE, NEW, CONTEXTS = 24, 300, 40, 500


@pytest.fixture
def hidden() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(CONTEXTS, D) + 2 * torch.randn(D)


def mean_probability(rows: torch.Tensor, hidden: torch.Tensor, base: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    logits = torch.cat([hidden @ base.T + bias, hidden @ rows.T], dim=1)
    return logits.double().softmax(dim=1)[:, BASE:].mean(0)


@pytest.mark.parametrize("with_bias", [False, True])
def test_mean_probabilities_are_the_smoothed_shares(hidden: torch.Tensor, with_bias: bool) -> None:
    rows, base = torch.randn(NEW, D) / 8, torch.randn(BASE, D) / 8
    counts = torch.arange(NEW)
    bias = torch.randn(BASE) if with_bias else torch.zeros(BASE)

    found = calibrated(
        rows,
        hidden=hidden,
        base=base,
        counts=counts,
        training_tokens=100_000,
        base_bias=bias if with_bias else None,
    )

    share = (counts.double() + SMOOTHING) / 100_000
    torch.testing.assert_close(mean_probability(found, hidden, base, bias), share, rtol=0.02, atol=0)


def test_rows_move_along_one_direction_only(hidden: torch.Tensor) -> None:
    rows, base = torch.randn(NEW, D), torch.randn(BASE, D)

    moved = calibrated(rows, hidden=hidden, base=base, counts=torch.ones(NEW), training_tokens=1000) - rows

    direction = constant_direction(hidden)
    along = moved @ direction / direction.square().sum()
    torch.testing.assert_close(moved, along[:, None] * direction, rtol=1e-4, atol=1e-5)


def test_the_direction_is_where_hidden_states_agree(hidden: torch.Tensor) -> None:
    strength = hidden @ constant_direction(hidden)
    mean = hidden.mean(0)

    assert abs(float(strength.mean()) - 1) < 0.05
    assert strength.std() < (hidden @ (mean / mean.square().sum())).std()
