"""The claim that figures allow, and no more."""

from __future__ import annotations

import pytest

from wake2vec.structure.verdict import verdict


def figures(held: tuple[float, float], trained: tuple[float, float] | None) -> dict:
    consistency = {"held_out_gain_null": {"value": held[0], "p": held[1]}, "trained_gain": 0.3}
    nulls = {} if trained is None else {"labels_gain": {"value": trained[0], "p": trained[1]}}
    return {"consistency": consistency, "trained_nulls": nulls}


@pytest.mark.parametrize(
    ("held", "trained", "said"),
    [
        ((0.05, 0.01), (0.3, 0.005), "held-out pairs gain (+0.0500, p = 0.010); whether by these losses"),
        ((-0.05, 0.01), (0.3, 0.005), "trained pairs alone (+0.3000; held out -0.0500, p = 0.010), as on random rows"),
        ((0.01, 0.4), (0.3, 0.005), "on trained pairs alone"),
        ((0.01, 0.4), (0.3, 0.4), "no gain, neither on trained pairs"),
        ((0.01, 0.4), None, "held-out pairs do not gain (+0.0100, p = 0.400); trained ones, +0.3000, prove nothing"),
    ],
)  # fmt: skip
def test_it_rests_on_held_out_pairs(held, trained, said):
    assert said in verdict(figures(held, trained))


def test_without_held_out_pairs_nothing_is_claimed():
    assert "nothing can be said" in verdict({"consistency": {"trained_gain": 0.9}})
