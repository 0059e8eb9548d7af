"""New words start at the probability that their count asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from bench.material.tiny import Shape, make_model
from wake2vec.data.blocks import Blocks
from wake2vec.model.new_rows import install_rows
from wake2vec.vocab.calibrate import SMOOTHING, calibrate_head, calibrated, constant_direction
from wake2vec.vocab.inject import inject

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


@pytest.mark.parametrize("mode", ["shared", "separate"])
def test_the_head_of_a_model_is_calibrated_on_its_training_text(
    byte_level: Any, tmp_path: Path, mode: Literal["shared", "separate"]
) -> None:
    done = inject(byte_level, ["riverrun", "prankquean"], directory=tmp_path)
    ids = done.tokenizer("the riverrun ran past the riverrun and " * 200, add_special_tokens=False)["input_ids"]
    blocks = Blocks(np.array(ids), 32, place="text")
    model = make_model(byte_level, Shape(width=32)).requires_grad_(False)
    first = done.id_map.first_new_id
    installed = install_rows(model, first_new_id=first, mode=mode, input_rows=torch.randn(2, 32))

    calibrate_head(model, installed.head, blocks, first_new_id=first)

    inputs = torch.from_numpy(blocks.batch(range(len(blocks)))[0])
    with torch.no_grad():
        probabilities = model(input_ids=inputs).logits.flatten(0, 1).softmax(-1)[:, first:].mean(0)
    counts = blocks.occurrences(first + 2)[first:]
    tokens = len(blocks) * blocks.length
    assert counts[0] > 100
    assert counts[1] == 0
    if mode == "separate":  # shared rows are read as inputs too, which moves the hidden states a little
        assert probabilities[0] == pytest.approx(counts[0] / tokens, rel=0.1)
        assert probabilities[1] == pytest.approx(0.5 / tokens, rel=0.1)
    assert probabilities[0] > 50 * probabilities[1]
