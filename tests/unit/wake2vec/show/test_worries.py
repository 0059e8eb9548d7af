"""What is wrong with a run, the worst first."""

from __future__ import annotations

import json
import math
from typing import Any

from wake2vec.contract.ledger import parse_ledger
from wake2vec.show.facts import RunFacts
from wake2vec.show.worries import worries

HEALTHY = [
    {"kind": "step", "step": 1, "loss": 6.0, "tokens": 9, "grad_norm": 0.5},
    {"kind": "evaluation", "step": 0, "loss": 6.0, "new_loss": 8.0, "ln_v": 7.0},
    {"kind": "evaluation", "step": 1, "loss": 5.0, "new_loss": 6.0, "ln_v": 7.0},
]


def told(*rows: dict[str, Any], **facts: Any) -> list[str]:
    return worries(RunFacts(model="m", **facts), parse_ledger(json.dumps(row) for row in rows or HEALTHY))


def test_a_healthy_run_has_none() -> None:
    assert told(n_new=9, words_present=9, words_met=9) == []


def test_new_words_above_ln_v_are_worse_than_guessing_though_the_whole_is_not() -> None:
    rows = [{**row, "new_loss": 8.0} if row["kind"] == "evaluation" else row for row in HEALTHY]

    assert told(*rows) == ["New words are worse than guessing, 8.00 nats where ln V = 7.00, at the best step."]


def test_a_model_above_ln_v_is_told_before_all_else() -> None:
    rows = [{**row, "ln_v": 2.0} for row in HEALTHY]

    assert told(*rows, n_new=9, words_present=5, words_met=5)[0].startswith("The model does worse than guessing")


def test_a_gradient_of_zero_everywhere_moves_nothing() -> None:
    rows = [{**row, "grad_norm": 0.0} for row in HEALTHY]

    assert told(*rows) == ["Nothing moved: the gradient was 0 in all of 1 steps."]


def test_evaluations_that_are_all_the_same_show_that_nothing_moved() -> None:
    rows = [{**row, "loss": 5.0, "new_loss": 6.0} for row in HEALTHY]

    assert told(*rows) == ["Nothing moved: all 2 evaluations gave the same figures."]


def test_a_last_loss_that_is_no_number_is_told() -> None:
    assert told(*HEALTHY, {"kind": "evaluation", "step": 2, "loss": math.nan})[0].startswith(
        "The last held-out loss is no"
    )


def test_words_that_training_has_not_met_are_counted() -> None:
    assert told(n_new=10, words_present=8, words_met=3) == [
        "Training has met 3 of the 8 new words that stand in its text.",
        "2 of 10 new words are nowhere in the training text: nothing teaches them.",
    ]


def test_what_an_older_run_did_not_count_is_not_invented() -> None:
    assert told(n_new=10) == []
