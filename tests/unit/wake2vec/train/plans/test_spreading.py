"""Samples or layers: what the cards of a job are dealt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tiny import material_for, order_for
from wake2vec.contract.errors import OutOfMemory
from wake2vec.train.plans import spreading
from wake2vec.train.plans.spreading import spread

ROOMY, TIGHT = 1 << 40, 1 << 20


@pytest.mark.parametrize(
    ("limit", "ranks", "train", "layers"),
    [
        (ROOMY, 2, {"train__cards": 2}, ()),
        (TIGHT, 2, {"train__cards": 2}, (1, 1)),
        (TIGHT, 2, {"train__cards": 2, "train__spread": "samples"}, ()),
        (ROOMY, 2, {"train__cards": 2, "train__spread": "layers"}, (1, 1)),
        (None, 2, {"train__cards": 2, "train__spread": "layers"}, (1, 1)),  # on a CPU
        (None, 2, {"train__cards": 2}, ()),
        (ROOMY, 1, {"train__cards": "auto", "train__spread": "layers"}, ()),
        (TIGHT, 1, {"train__cards": 1}, ()),  # a job of one card has its ladder
    ],
)
def test_layers_are_dealt_out_where_they_are_asked_for_or_one_card_cannot_hold_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None, ranks: int, train: dict[str, Any],
    layers: tuple[int, ...],
) -> None:  # fmt: skip
    monkeypatch.setattr(spreading, "memory_limit", lambda device: limit)

    assert spread(material_for(tmp_path, order_for(tmp_path, **train)), ranks) == layers


def test_a_lone_card_that_cannot_hold_the_model_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "memory_limit", lambda device: TIGHT)

    with pytest.raises(OutOfMemory, match=r'needs 0\.1 GiB on one card, which has 0\.0; .*train.spread = "layers"'):
        spread(material_for(tmp_path, order_for(tmp_path, train__cards=2)), 1)
