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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_steps_vanish_when_rounded_to_the_nearest_and_survive_a_draw_in_the_mean(dtype: torch.dtype):
    before = torch.full((200, 200), 0.5)
    step = 2.0 ** (-14 if dtype is torch.float16 else -11)  # an eighth of the gap and less
    nearest, drawn = (Stored(dtype, stochastic=way, seed=1, device="cpu") for way in (False, True))
    one, two = before + step, before + step
    nearest.settle("rows", one, before, 1.0)
    drawn.settle("rows", two, before, 1.0)

    assert torch.equal(one, before)
    assert nearest.figures()["rounded_to_nothing"] == 1.0
    assert float((two - before).mean()) == pytest.approx(step, rel=0.1)
    assert torch.equal(two, two.to(dtype).float())


def test_a_draw_rounds_negative_numbers_both_ways_too():
    before = torch.full((300, 300), -0.5)
    rows = before - 2.0**-14
    Stored(torch.float16, stochastic=True, seed=1, device="cpu").settle("rows", rows, before, 1.0)

    assert float((rows - before).mean()) == pytest.approx(-(2.0**-14), rel=0.1)
    assert set((rows - before).unique().tolist()) == {0.0, -(2.0**-11)}
