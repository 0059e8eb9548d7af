"""Layers dealt out to cards, before any is spent."""

from __future__ import annotations

import pytest

from wake2vec.contract.budget import CARDS, GIB, Workload, budget, work
from wake2vec.contract.models.model_shapes import SHAPES
from wake2vec.contract.plan import Plan
from wake2vec.contract.stages import deal_layers, needed, stages, step_time

T4 = CARDS["t4"]
LIMIT = (T4.memory_gib - T4.overhead_gib) * GIB
LARGE = Workload(
    shape=SHAPES["Qwen/Qwen2.5-32B"], phase="p1", load="nf4", new_tokens=44_223, rows="separate", batch=16, seq_len=256
)
PLANS = [Plan(micro_batch=size, layers=path, embedding="host") for size in (1, 2, 4) for path in ("lean", "checkpoint")]


def test_the_cards_together_hold_the_model_and_the_first_alone_the_vocabulary() -> None:
    plan = PLANS[0]
    whole, (first, second) = budget(LARGE, plan), (budget(stage, plan) for stage in stages(LARGE, (30, 34)))

    assert first.body + second.body == pytest.approx(whole.body, rel=1e-4)
    assert (first.head, first.rows, first.gradients) == (whole.head, whole.rows, whole.gradients)
    assert second.head == second.rows == second.gradients == 0
    # three micro-batches are under way in the first card's layers, two in the second's
    assert first.kept == 3 * whole.kept * 30 // 64
    assert second.kept == 2 * whole.kept * 34 // 64


def test_no_more_is_kept_than_there_are_micro_batches() -> None:
    plan = Plan(micro_batch=16)

    assert stages(LARGE, (30, 34))[0].in_flight == 3
    assert budget(stages(LARGE, (30, 34))[0], plan).kept == budget(LARGE, plan).kept * 30 // 64


def test_a_model_too_large_for_one_card_goes_over_two() -> None:
    lean = Plan(micro_batch=1, layers="offload", embedding="host")
    assert needed(LARGE, lean).total > LIMIT

    layers = deal_layers(LARGE, PLANS, card=T4, cards=2, limit_bytes=LIMIT)

    assert sum(layers) == 64
    assert min(needed(LARGE, plan, layers).total for plan in PLANS) <= LIMIT


def test_the_first_card_gets_fewer_layers_for_the_work_and_the_room_that_its_vocabulary_takes() -> None:
    free = deal_layers(LARGE, PLANS, card=T4, cards=2, limit_bytes=None)
    tight = deal_layers(LARGE, PLANS[:1], card=T4, cards=2, limit_bytes=LIMIT)
    three = deal_layers(LARGE, PLANS, card=T4, cards=3, limit_bytes=None)

    assert tight[0] < free[0] < 32
    assert max(three[1:]) - min(three[1:]) <= 1


def test_where_nothing_fits_the_cards_are_filled_alike() -> None:
    layers = deal_layers(LARGE, PLANS[:1], card=T4, cards=2, limit_bytes=GIB)
    first, second = (budget(stage, PLANS[0]).total for stage in stages(LARGE, layers))

    assert abs(first - second) < 2 * GIB


def test_a_step_takes_longer_the_fewer_micro_batches_follow_one_another() -> None:
    one = step_time(LARGE, PLANS[0], T4)
    many, few = (step_time(LARGE, Plan(micro_batch=size), T4, (30, 34)) for size in (1, 8))

    assert one.seconds == work(LARGE, PLANS[0]).seconds(T4.half_tflops, T4.bandwidth_gbs)
    assert many.waiting < few.waiting < 0.5
    assert few.waiting == pytest.approx(1 / 3, abs=0.05)  # of three times two, each of two cards works twice
