"""The ledger reader, against every state that a cut can leave a ledger in."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from wake2vec.contract.ledger import (
    EvaluationRow,
    EventRow,
    Row,
    StepRow,
    from_json,
    parse_ledger,
    read_ledger,
    to_json,
)


def line(**values: object) -> str:
    return json.dumps(values)


def test_an_absent_ledger_is_an_empty_one(tmp_path: Path) -> None:
    ledger = read_ledger(tmp_path / "metrics.jsonl")

    assert (ledger.steps, ledger.evaluations, ledger.best, ledger.last_step) == ((), (), None, 0)


def test_rows_of_every_kind_come_back_with_their_figures() -> None:
    ledger = parse_ledger(
        [
            line(kind="step", step=1, loss=2.5, tokens=64, lr=1e-3, grad_norm=0.5, seconds=2.0),
            line(kind="evaluation", step=1, loss=3.0, tokens=10, bits_per_byte=1.2, new_loss=5.0, new_tokens=4,
                 base_loss=2.0, base_tokens=6, ln_v=6.9, checkpoint="checkpoint-1", seconds=1.0),
            line(kind="event", step=1, event="oom", text="micro-batch 2 to 1"),
        ]
    )  # fmt: skip

    assert ledger.steps[0].loss == 2.5
    assert ledger.evaluations[0].new_tokens == 4
    assert ledger.evaluations[0].checkpoint == "checkpoint-1"
    assert ledger.events[0].text == "micro-batch 2 to 1"
    assert ledger.ln_v == 6.9


def test_a_torn_last_line_is_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line(kind="step", step=1, loss=2.5, tokens=64).encode() + b'\n{"kind":"step","step":2,"lo\xe2')

    ledger = read_ledger(path)

    assert [row.step for row in ledger.steps] == [1]
    assert ledger.unreadable_lines == 1


def test_a_step_trained_again_after_a_cut_counts_once_with_its_last_value() -> None:
    ledger = parse_ledger(
        [line(kind="step", step=step, loss=loss, tokens=1) for step, loss in ((1, 5), (2, 4), (2, 3))]
    )

    assert [(row.step, row.loss) for row in ledger.steps] == [(1, 5.0), (2, 3.0)]


def test_not_finite_losses_stay_visible_and_are_never_the_best() -> None:
    ledger = parse_ledger(
        [
            '{"kind":"evaluation","step":1,"loss":NaN,"tokens":1}',
            '{"kind":"evaluation","step":2,"loss":null,"tokens":1}',
            '{"kind":"evaluation","step":3,"loss":4.0,"tokens":1}',
            '{"kind":"evaluation","step":4,"loss":-Infinity,"tokens":1}',
        ]
    )

    assert ledger.best is not None
    assert ledger.best.step == 3
    assert [math.isfinite(row.loss) for row in ledger.evaluations] == [False, False, True, False]


def test_lines_that_are_json_but_no_row_are_counted() -> None:
    ledger = parse_ledger(
        ["[]", "3", '{"kind":"step"}', '{"kind":"weather","step":1}', '{"kind":"step","step":"x"}', ""]
    )

    assert ledger.unreadable_lines == 5


@pytest.mark.parametrize("row", [
    StepRow(step=3, loss=2.5, tokens=8, lr=0.1, rows_moving=0.5, attempt=2),
    EvaluationRow(step=3, loss=2.5, tokens=8, new_tokens=3, checkpoint="checkpoint-3", english_bits_per_byte=1.0),
    EventRow(step=3, event="oom", text="micro-batch 2 to 1"),
])  # fmt: skip
def test_a_row_is_read_as_it_was_written_and_unknown_keys_are_passed_over(row: Row) -> None:
    line = to_json(row)

    assert from_json(json.loads(json.dumps(line))) == row
    assert from_json(line | {"of_a_later_version": {"a": 1}}) == row
    assert None not in line.values()


def test_a_value_of_another_kind_is_as_if_it_were_missing() -> None:
    assert from_json({"kind": "step", "step": 1, "loss": "x", "lr": True, "attempt": 1.0}) == StepRow(step=1, attempt=1)
