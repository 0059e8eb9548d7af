"""What bends gradients and corrects steps."""

from __future__ import annotations

import pytest
import torch

from bench.trials.levers import ByFrequency, Pull, Spelling, Stored, spellings


def test_a_pull_brings_a_row_back_to_its_start():
    start, rows = torch.zeros(2, 3), torch.ones(2, 3)
    pull = Pull(0.5)
    pull.settle("rows", rows, start, 1.0)

    assert torch.equal(rows, torch.full((2, 3), 0.5))


def test_rare_words_take_longer_steps_where_the_power_is_negative():
    before, rows = torch.zeros(3, 1), torch.ones(3, 1)
    ByFrequency(-0.5, torch.tensor([1, 4, 16])).settle("rows", rows, before, 1.0)

    assert rows.flatten().tolist() == [2.0, 1.0, 0.5]


def test_a_spelling_pulls_as_hard_as_its_share_says_and_towards_the_words_letters():
    torch.manual_seed(0)
    published = torch.randn(400, 16)
    tokens = [f"{a}{b}{c}" for a in "abcdefgh" for b in "ijklmnop" for c in "qrstuvw"][:400]
    lever = Spelling(0.5, published, tokens, ["aiq", "bjr"])
    rows, gradient = torch.randn(2, 16), torch.randn(2, 16)
    before = gradient.clone()
    lever.bend("rows", rows, gradient)
    change = gradient - before
    error = (rows @ lever.map - lever.wanted).square().sum()
    nearer = ((rows - 1e-3 * change) @ lever.map - lever.wanted).square().sum()

    assert change.norm() == pytest.approx(0.5 * float(before.norm()), rel=1e-4)
    assert nearer < error
    assert spellings(["Anna"]).norm() == pytest.approx(1.0)


@pytest.mark.parametrize(("dtype", "step"), [(torch.float16, 2.0**-14), (torch.bfloat16, 2.0**-11)])
def test_small_steps_vanish_when_rounded_to_the_nearest(dtype: torch.dtype, step: float):
    before = torch.full((200, 200), 0.5)
    nearest = Stored(dtype, drawn=False, seed=1, device="cpu")
    rows = before + step  # an eighth of the gap
    nearest.settle("rows", rows, before, 1.0)

    assert torch.equal(rows, before)
    assert nearest.figures()["rounded_to_nothing"] == 1.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_small_steps_survive_a_draw_in_the_mean(sign: float):
    before = torch.full((300, 300), sign * 0.5)
    rows = before + sign * 2.0**-11
    Stored(torch.bfloat16, drawn=True, seed=1, device="cpu").settle("rows", rows, before, 1.0)

    assert float((rows - before).mean()) == pytest.approx(sign * 2.0**-11, rel=0.1)
    assert set((rows - before).unique().tolist()) == {0.0, sign * 2.0**-8}
