"""P3 on two ranks, and on words that share a row over their forms: what structure adds is added once, on each rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import loop_for, material_for, order_for, run_of
from tests.unit.wake2vec.phases.test_p3 import SHORT, p3_order
from tests.unit.wake2vec.train.ranks.test_ranks import (  # noqa: F401
    Start,
    largest_difference,
    losses,
    start,
    weights,
)
from tests.unit.wake2vec.train.test_attempt import asking_after, end, nothing
from wake2vec.contract.rundir import RunDir
from wake2vec.train.loop import Loop
from wake2vec.train.stopping import Stop

Below = tuple[tuple[Path, RunDir], RunDir]


@pytest.fixture(scope="module", params=[pytest.param("one", marks=pytest.mark.sweep), "shared"])
def below(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Below:
    """A P1 whose words have one form or share a row over several, and a P2 on it."""
    folder = tmp_path_factory.mktemp(request.param)
    loop_for(material_for(folder, order_for(folder, name="p1", vocab__forms=request.param, **SHORT), "p1")).run_to_end(
        nothing
    )
    p1 = run_of(folder, "p1")
    order = order_for(folder, of="tiny_p2", name="p2", source=p1, **SHORT)
    loop_for(material_for(folder, order, "p2")).run_to_end(nothing)
    return (folder, p1), run_of(folder, "p2")


def on(below: Below, start: Start, name: str, ranks: int, **changes: Any) -> Loop:  # noqa: F811
    (folder, _), p2 = below
    loop = start(folder, p3_order(below[0], p2, name, **changes), name, ranks)
    loop.run_to_end(nothing)
    return loop


def structures(loop: Loop) -> list[Any]:
    return [row["structure"] for row in loop.progress.rows if row.get("structure")]


def test_two_ranks_train_the_structure_as_one_does(below: Below, start: Start) -> None:  # noqa: F811
    alone = on(below, start, "alone", 1)
    shared = on(below, start, "two", 2)

    assert any(row.get("strength") for row in structures(alone)), "no step had a structure to train"
    assert largest_difference(shared, alone) < 1e-6
    assert losses(shared) == pytest.approx(losses(alone), rel=1e-6)


def test_a_fixed_sum_gives_the_same_bits_on_both(below: Below, start: Start) -> None:  # noqa: F811
    alone = on(below, start, "fixed-alone", 1, train__reduction="fixed")
    shared = on(below, start, "fixed-two", 2, train__reduction="fixed")

    assert losses(shared) == losses(alone)
    assert structures(shared) == structures(alone)
    assert all(torch.equal(tensor, weights(alone)[name]) for name, tensor in weights(shared).items())


@pytest.mark.parametrize("train", ["lora+rows", pytest.param("rows", marks=pytest.mark.sweep)])
def test_layers_on_two_cards_train_the_structure_as_one_card_does(
    below: Below,
    start: Start,  # noqa: F811
    train: str,
) -> None:
    fixed = {"train__reduction": "fixed", "lora__train": train}
    name = train.replace("+", "-")
    alone = on(below, start, f"{name}-whole", 1, **fixed)
    dealt = on(below, start, f"{name}-dealt", 2, **fixed, train__cards=2, train__spread="layers")
    dealt.team.gather(dealt.prepared, dealt.optimizer)

    assert dealt.prepared.stage is not None
    assert losses(dealt) == losses(alone)
    assert structures(dealt) == structures(alone)
    assert all(torch.equal(tensor, weights(alone)[name]) for name, tensor in weights(dealt).items())


def test_it_resumes_in_the_same_bits(below: Below) -> None:
    (folder, _), p2 = below
    uncut = loop_for(material_for(folder, p3_order(below[0], p2, "uncut"), "uncut"))
    uncut.run_to_end(nothing)
    material, stop = material_for(folder, p3_order(below[0], p2, "cut"), "cut"), Stop()
    first = loop_for(material, stop)
    first.stepper.run = asking_after(first, stop, steps=3)  # type: ignore[method-assign]
    first.run_to_end(nothing)
    second = loop_for(material)
    assert second.progress.step == 3
    second.run_to_end(nothing)

    assert end(second) == end(uncut)
