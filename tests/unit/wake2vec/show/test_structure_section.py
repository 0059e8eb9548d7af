"""What a report shows of the rows' structure, whatever a row of the ledger holds."""

from __future__ import annotations

import json
from types import SimpleNamespace

from wake2vec.contract.ledger import parse_ledger
from wake2vec.show.report.sections import structure


def view(*found: object) -> SimpleNamespace:
    rows = [{"kind": "evaluation", "step": 20 * n, "loss": 5.0, "structure": one} for n, one in enumerate(found)]
    return SimpleNamespace(ledger=parse_ledger(json.dumps(row) for row in rows))


def test_figures_stand_beside_their_p_and_the_verdict_above():
    consistency = {"held_out": 0.25, "held_out_null": {"p": 0.005}}
    html = str(structure(view({"consistency": consistency, "verdict": "the gain is on trained pairs alone"})))

    assert "0.2500 (p 0.005)" in html
    assert "the gain is on trained pairs alone" in html


def test_a_run_without_any_has_no_section_and_an_odd_row_breaks_nothing():
    assert structure(view(None, 3)) is None
    assert "Structure of the rows" in str(structure(view({"consistency": 7})))
