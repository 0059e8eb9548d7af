from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from tests.tiny import loop_for, material_for, order_for
from wake2vec.contract import failpoints
from wake2vec.contract.errors import OutOfMemory
from wake2vec.contract.files import read_json
from wake2vec.contract.ledger import EvaluationRow
from wake2vec.contract.tables import EvaluateTable
from wake2vec.data.blocks import Windows
from wake2vec.train.evaluate import EvaluationSet, Losses, Sums, as_row, choose_windows, evaluate, judge, measure
from wake2vec.train.loop import Loop
from wake2vec.train.stopping import Stop


def rows(*losses: float) -> list[EvaluationRow]:
    """Evaluations at steps 100, 200, ..."""
    return [EvaluationRow(step=100 * number, loss=loss) for number, loss in enumerate(losses, start=1)]


def measured(sums: Sums) -> Losses:
    return Losses(held_out=sums, english=sums, english_base=sums)


def test_the_best_step_is_the_one_of_lowest_loss() -> None:
    assert judge(rows(5.0, 4.0, 4.5), EvaluateTable()).best_step == 200


def test_step_zero_is_the_line_to_beat_and_no_candidate() -> None:
    assert judge([EvaluationRow(step=0, loss=1.0), *rows(5.0)], EvaluateTable()).best_step == 100


def test_patience_counts_evaluations_without_a_new_best() -> None:
    rules = EvaluateTable(patience=2)

    assert judge(rows(5.0, 4.0, 4.5), rules).stop_reason == ""
    assert "2 evaluations without a new best" in judge(rows(5.0, 4.0, 4.5, 4.6), rules).stop_reason


def test_the_best_is_the_lowest_loss_whatever_min_delta_asks_of_patience() -> None:
    verdict = judge(rows(5.0, 4.95, 4.91), EvaluateTable(min_delta=0.1, patience=2))

    assert (verdict.best_step, verdict.best_loss) == (300, 4.91)
    assert "2 evaluations" in verdict.stop_reason


def test_a_stop_rule_fires_at_its_step_alone() -> None:
    rules = EvaluateTable(stop_if="val > 5.40 at 200")

    assert judge(rows(6.0), rules).stop_reason == ""
    assert judge(rows(6.0, 5.41), rules).stop_reason.startswith("val > 5.40 at 200")
    assert judge(rows(6.0, 5.39), rules).stop_reason == ""


@given(st.lists(st.floats(0, 20), min_size=1, max_size=30), st.integers(1, 5), st.randoms())
def test_the_verdict_does_not_depend_on_the_order_of_rows(losses: list[float], patience: int, chance: Any) -> None:
    shuffled = rows(*losses)
    chance.shuffle(shuffled)

    assert judge(shuffled, EvaluateTable(patience=patience)) == judge(rows(*losses), EvaluateTable(patience=patience))


@given(st.integers(1, 500), st.integers(1, 500))
def test_a_limited_choice_of_windows_is_spread_and_has_no_repeats(count: int, limit: int) -> None:
    chosen = choose_windows(count, limit)

    assert len(chosen) == min(count, limit)
    assert chosen == sorted(set(chosen))
    assert chosen[0] == 0
    assert chosen[-1] < count


def test_bits_per_byte_is_nats_over_the_bytes_that_targets_stand_for() -> None:
    sums = Sums(windows=1, new_nats=3.0, new_tokens=1, base_nats=5.0, base_tokens=3, bytes=16)

    row = as_row(measured(sums), step=7, checkpoint="checkpoint-7", vocabulary=1000, seconds=1.0)

    assert row["loss"] == 2.0
    assert row["bits_per_byte"] == pytest.approx(8.0 / math.log(2) / 16)
    assert (row["new_loss"], row["base_loss"]) == (3.0, pytest.approx(5 / 3))
    assert row["ln_v"] == pytest.approx(math.log(1000))


def test_a_text_without_new_words_has_no_new_loss() -> None:
    sums = Sums(windows=1, base_nats=5.0, base_tokens=3, bytes=16)
    assert as_row(measured(sums), step=1, checkpoint=None, vocabulary=10, seconds=0.0).get("new_loss") is None


def four(windows: Windows, loop: Loop) -> EvaluationSet:
    return EvaluationSet(windows=windows, head=loop.prepared.rows.head, limit=4)


def test_an_evaluation_equals_plain_cross_entropy_over_all_windows(tmp_path: Path) -> None:
    material = material_for(tmp_path, order_for(tmp_path))
    loop = loop_for(material)
    windows, prepared = material.windows, loop.prepared

    sums = measure(
        prepared, four(windows, loop), rows_at_once=2, partial=tmp_path / "p",
        key="k", stop=Stop(), progress=lambda share: None,
    )  # fmt: skip

    chosen = choose_windows(len(windows.inputs), 4)
    inputs, targets = torch.from_numpy(windows.inputs[chosen]), torch.from_numpy(windows.targets[chosen])
    with torch.no_grad():
        logits = prepared.model(input_ids=inputs).logits.double()
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")
    assert sums is not None
    assert sums.nats == pytest.approx(float(expected), rel=1e-5)
    assert sums.tokens == int((targets != -100).sum())


def test_an_interrupted_evaluation_goes_on_where_it_was_and_ends_in_the_same_bits(tmp_path: Path) -> None:
    material = material_for(tmp_path, order_for(tmp_path))
    loop = loop_for(material)
    stop = Stop()

    def run(partial: Path, stop: Stop, after: int | None = None) -> Sums | None:
        seen: list[float] = []

        def progress(share: float) -> None:
            seen.append(share)
            if len(seen) == after:
                stop.ask("cut")

        return measure(
            loop.prepared, four(material.windows, loop), rows_at_once=1,
            partial=partial, key="k", stop=stop, progress=progress,
        )  # fmt: skip

    whole = run(tmp_path / "whole", Stop())
    assert run(tmp_path / "cut", stop, after=2) is None
    assert read_json(tmp_path / "cut")["sums"]["windows"] == 2

    assert run(tmp_path / "cut", Stop()) == whole


def test_an_evaluation_that_runs_out_of_memory_takes_fewer_windows_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    material = material_for(tmp_path, order_for(tmp_path))
    loop = loop_for(material)

    def run(partial: str, rows_at_once: int) -> Sums | None:
        return measure(
            loop.prepared, four(material.windows, loop), rows_at_once=rows_at_once,
            partial=tmp_path / partial, key="k", stop=Stop(), progress=lambda share: None,
        )  # fmt: skip

    expected = run("whole", 4)
    monkeypatch.setattr(failpoints, "_hits", Counter())
    monkeypatch.setenv(failpoints.VARIABLE, "evaluation.forward=oom:1,evaluation.forward=oom:2")
    found = run("short", 4)
    monkeypatch.setenv(failpoints.VARIABLE, "evaluation.forward=oom:1+")

    assert expected is not None
    assert found is not None
    assert found.nats == pytest.approx(expected.nats, rel=1e-6)
    assert (found.windows, found.tokens, found.bytes) == (4, expected.tokens, expected.bytes)
    with pytest.raises(OutOfMemory, match="does not fit"):
        run("none", 4)


def test_partial_sums_of_other_weights_are_not_used(tmp_path: Path) -> None:
    material = material_for(tmp_path, order_for(tmp_path))
    loop = loop_for(material)

    def run(key: str) -> Sums | None:
        return measure(
            loop.prepared, four(material.windows, loop), rows_at_once=4,
            partial=tmp_path / "partial", key=key, stop=Stop(), progress=lambda share: None,
        )  # fmt: skip

    first = run("one")
    with torch.no_grad():
        loop.prepared.trainable["rows"].mul_(3.0)

    assert run("one") == first
    assert run("two") != first


def english_of(loop: Loop, tmp_path: Path) -> Losses:
    found = evaluate(
        loop.prepared, loop.material, folder=tmp_path, key=str(loop.progress.step), stop=Stop(), progress=lambda _: None
    )
    assert found is not None
    return found


def test_english_over_published_tokens_stays_what_the_published_model_gives_through_p1(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    loop = loop_for(material_for(tmp_path, order_for(tmp_path, train__steps=3, train__lr=0.5)))
    windows = loop.material.english_base
    assert loop.job.model
    published = AutoModelForCausalLM.from_pretrained(loop.job.model.base, dtype=torch.float32)
    with torch.no_grad():
        logits = published(input_ids=torch.from_numpy(windows.inputs)).logits.double()
    targets = torch.from_numpy(windows.targets).flatten()
    expected = F.cross_entropy(logits.flatten(0, 1), targets, ignore_index=-100, reduction="sum")
    before = english_of(loop, tmp_path)

    loop.run_to_end(lambda: None)
    after = english_of(loop, tmp_path)

    assert before.english_base.nats == pytest.approx(float(expected), rel=1e-5)
    assert after.english_base == before.english_base  # to the bit: neither the body nor a base row has moved
    assert after.english.nats != before.english.nats  # new words take their share of the probability


def test_every_evaluation_of_the_ledger_tells_of_english(tmp_path: Path) -> None:
    loop = loop_for(material_for(tmp_path, order_for(tmp_path, train__steps=2, evaluate__every_steps=1)))
    loop.run_to_end(lambda: None)

    rows = loop.progress.evaluations

    assert len(rows) == 3
    assert len({row.english_base_bits_per_byte for row in rows}) == 1
    assert (rows[0].english_bits_per_byte or 0) > (rows[0].english_base_bits_per_byte or 0)


def test_an_evaluation_that_is_cut_in_the_control_goes_on_there(tmp_path: Path) -> None:
    loop = loop_for(material_for(tmp_path, order_for(tmp_path)))
    stop, shares = Stop(), []

    def cut(share: float) -> None:
        shares.append(share)
        if len(shares) == 2:  # the held-out windows are complete, the control has begun
            stop.ask("cut")

    def run(folder: Path, stop: Stop, progress: Callable[[float], None]) -> Losses | None:
        return evaluate(loop.prepared, loop.material, folder=folder, key="k", stop=stop, progress=progress)

    whole = run(tmp_path / "whole", Stop(), lambda _: None)
    assert run(tmp_path / "cut", stop, cut) is None
    assert read_json(tmp_path / "cut" / "partial-english.json")["sums"]["windows"] > 0

    assert run(tmp_path / "cut", Stop(), lambda _: None) == whole
