"""The curve as a picture: its scale is that of the curves."""

from __future__ import annotations

import json

import pytest
from matplotlib.figure import Figure

from wake2vec.contract.ledger import parse_ledger
from wake2vec.show.curves import losses
from wake2vec.show.facts import RunFacts
from wake2vec.show.png import draw


@pytest.mark.parametrize(
    ("ln_v", "label"), [(6.1, "ln V = 6.10 (guessing)"), (12.19, "ln V = 12.19 (guessing) lies above the picture")]
)
def test_ln_v_is_a_line_where_it_is_near_and_a_note_where_it_is_not(ln_v: float, label: str) -> None:
    rows = [{"kind": "evaluation", "step": step, "loss": loss, "ln_v": ln_v} for step, loss in ((0, 6.0), (9, 5.0))]
    axes = Figure().subplots()

    draw(axes, losses(RunFacts(model="m"), parse_ledger(json.dumps(row) for row in rows)))

    assert axes.get_ylim()[1] < 6.5
    assert label in axes.get_legend_handles_labels()[1]
