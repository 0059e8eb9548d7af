"""The ladder of plans: its order, its end, and the way back up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wake2vec.contract.plan import WRITTEN_OUT, Allowed, LayerPath, Plan, grow, micro_batches, next_rung

ALLOWED = Allowed(batch=16, seq_len=256)


def descent(plan: Plan, allowed: Allowed) -> list[Plan]:
    found = [plan]
    while (rung := next_rung(found[-1], "oom_after_defragmenting", allowed)) is not None:
        found.append(rung.plan)
    return found


def test_the_first_failure_repeats_the_same_plan() -> None:
    plan = Plan(micro_batch=4)

    rung = next_rung(plan, "oom", ALLOWED)

    assert rung is not None
    assert rung.plan == plan


def test_the_ladder_halves_then_recomputes_then_moves_then_cuts_blocks() -> None:
    plans = descent(Plan(micro_batch=4, layers="lean"), replace(ALLOWED, smallest_context=64))

    assert [plan.micro_batch for plan in plans[:3]] == [4, 2, 1]
    assert [plan.layers for plan in plans[2:5]] == ["lean", "checkpoint", "offload"]
    assert plans[5].embedding == "host"
    assert [plan.block_splits for plan in plans[5:]] == [1, 2, 4]


@pytest.mark.parametrize("start", ["lean", "autograd"])
@pytest.mark.parametrize(("refused", "steps"), [
    ((), ["checkpoint", "offload"]), (("checkpoint",), ["offload"]), (WRITTEN_OUT, ["recompute"]),
])  # fmt: skip
def test_the_ladder_has_no_rung_that_computes_something_else(
    start: LayerPath, refused: tuple[LayerPath, ...], steps: list[LayerPath]
) -> None:
    allowed = replace(ALLOWED, holds=lambda path: path not in refused)

    plans = descent(Plan(micro_batch=1, layers=start), allowed)

    assert [plan.layers for plan in plans[: len(steps) + 1]] == [start, *steps]
    assert {plan.layers for plan in plans[len(steps) :]} == {steps[-1]}
    assert len(plans) == len({*map(str, plans)})  # it ends


def test_a_job_can_forbid_a_shorter_context() -> None:
    plans = descent(Plan(micro_batch=16), replace(ALLOWED, shorter_context=False))

    assert {plan.block_splits for plan in plans} == {1}


def test_only_cutting_blocks_changes_the_context_and_it_comes_last() -> None:
    plan = Plan(micro_batch=16)
    changes = []
    while (rung := next_rung(plan, "oom_after_defragmenting", ALLOWED)) is not None:
        changes.append(rung.changes_context)
        plan = rung.plan

    assert True in changes
    assert changes == sorted(changes)


def test_a_failure_in_the_optimizer_goes_on_leaner() -> None:
    rung = next_rung(Plan(micro_batch=2), "oom_in_optimizer", ALLOWED)

    assert rung is not None
    assert rung.plan == Plan(micro_batch=1)


def test_a_plan_that_an_older_version_remembers_is_read_unless_this_one_cannot_do_it() -> None:
    old = {"micro_batch": 2, "layers": "lean", "embedding": "host", "head": "as-is", "block_splits": 2}

    assert Plan.from_dict(old) == Plan(micro_batch=2, layers="lean", embedding="host", block_splits=2)
    assert Plan.from_dict(old | {"head": "nf4"}) is None
    assert Plan.from_dict(Plan(micro_batch=2).to_dict()) == Plan(micro_batch=2)


@pytest.mark.parametrize("batch", [1, 6, 7, 12, 16, 48])
def test_every_micro_batch_on_the_way_divides_the_batch(batch: int) -> None:
    allowed = replace(ALLOWED, batch=batch)

    assert all(batch % plan.micro_batch == 0 for plan in descent(Plan(micro_batch=batch), allowed))
    assert all(batch % size == 0 for size in micro_batches(batch))


def test_the_way_up_needs_clean_steps_and_room() -> None:
    plan, ceiling = Plan(micro_batch=2), Plan(micro_batch=8)

    assert grow(plan, ceiling, clean_steps=199, free_share=0.5, batch=16) is None
    assert grow(plan, ceiling, clean_steps=200, free_share=0.19, batch=16) is None
    assert grow(plan, ceiling, clean_steps=200, free_share=0.2, batch=16) == Plan(micro_batch=4)


@pytest.mark.parametrize("batch", [6, 16])
def test_growing_reaches_the_ceiling_from_the_bottom_and_restores_the_context_first(batch: int) -> None:
    ceiling = Plan(micro_batch=batch, layers="lean")
    plan = descent(ceiling, replace(ALLOWED, batch=batch))[-1]
    path = []
    while (higher := grow(plan, ceiling, clean_steps=200, free_share=0.3, batch=batch)) is not None:
        path.append(plan := higher)

    assert path[-1] == ceiling
    splits = [step.block_splits for step in path]
    assert splits == sorted(splits, reverse=True)
    assert path[splits.index(1)].micro_batch == 1


def test_a_remembered_plan_comes_back_and_one_of_another_version_does_not() -> None:
    plan = Plan(micro_batch=4, layers="lean", embedding="host")

    assert Plan.from_dict(plan.to_dict()) == plan
    assert Plan.from_dict({}) is None
    assert Plan.from_dict({**plan.to_dict(), "colour": "red"}) is None
