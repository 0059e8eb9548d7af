"""P3 inside this process: what it starts from, what its auxiliary part changes, and what it leaves alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import loop_for, material_for, order_for, plan, prepared_for, run_of
from tests.unit.wake2vec.train.test_attempt import asking_after, end, nothing, require_rest
from wake2vec.contract.errors import InputError
from wake2vec.contract.manifest import manifest_sha256, saved_steps
from wake2vec.contract.order import Order, Source
from wake2vec.contract.rundir import RunDir
from wake2vec.model.device import copy_to_host
from wake2vec.train.checkpoint import TrainingState, write_checkpoint
from wake2vec.train.loop import Loop
from wake2vec.train.state import LossScale
from wake2vec.train.step import Stepper
from wake2vec.train.stopping import Stop

SHORT = {
    "train__steps": 4, "checkpoint__every_steps": 2, "evaluate__every_steps": 4,
    "train__micro_batch": 4, "train__layers": "autograd",
}  # fmt: skip
QUICK = {"geometry__ramp_steps": 2, "morphemes__nulls": 5, "lora__r": 4, "lora__alpha": 8}
CONTROL = {"morphemes__weight": 0.0, "devices__weight": 0.0}


@pytest.fixture(scope="module")
def p1(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunDir]:
    folder = tmp_path_factory.mktemp("p1")
    order = order_for(folder, name="p1", **SHORT)
    loop_for(material_for(folder, order, "p1")).run_to_end(nothing)
    return folder, run_of(folder, "p1")


@pytest.fixture(scope="module")
def p2(p1: tuple[Path, RunDir]) -> tuple[RunDir, float]:
    """A P2 of adapters alone, and its last held-out loss."""
    folder, run = p1
    order = order_for(folder, of="tiny_p2", name="p2", source=run, **SHORT)
    loop = loop_for(material_for(folder, order, "p2"))
    loop.run_to_end(nothing)
    return run_of(folder, "p2"), loop.progress.evaluations[-1].loss


def p3_order(p1: tuple[Path, RunDir], source: RunDir, name: str, **changes: Any) -> Order:
    """On the adapters of a P2 and the rows of its P1, as the runner puts them side by side."""
    folder, below = p1
    order = order_for(folder, of="tiny_p3", name=name, source=source, **{**SHORT, **QUICK, **changes})
    step = saved_steps(below)[0]
    folder_of_rows = f"source/rows/checkpoint-{step}"
    shutil.copytree(below.checkpoint(step), run_of(folder, name).root / folder_of_rows)
    sha256 = manifest_sha256(below.checkpoint(step))
    rows = Source(job="p1", step=step, manifest_sha256=sha256, folder="source/rows")
    assert order.source is not None
    return order.model_copy(update={"source": order.source.model_copy(update={"rows": rows})})


def run_to_end(p1: tuple[Path, RunDir], order: Order, name: str) -> Loop:
    loop = loop_for(material_for(p1[0], order, name))
    loop.run_to_end(nothing)
    return loop


def test_it_begins_with_the_adapter_and_rows_of_its_p2_and_its_held_out_loss(p1, p2) -> None:
    order = p3_order(p1, p2[0], "begins")
    loop = run_to_end(p1, order, "begins")
    first = loop.progress.evaluations[0]

    assert first.loss == pytest.approx(p2[1], abs=1e-6)
    assert first.structure["consistency"]["trained_gain"] == 0
    assert "verdict" not in first.structure
    assert loop.progress.evaluations[-1].structure["verdict"]
    assert loop.progress.rows[0]["event"] == "groups"


@pytest.mark.parametrize("steps", [pytest.param(1, marks=pytest.mark.sweep), 3])
def test_it_resumes_in_the_same_bits_wherever_it_was_stopped(p1, p2, steps: int) -> None:
    uncut = run_to_end(p1, p3_order(p1, p2[0], f"uncut{steps}"), f"uncut{steps}")
    order = p3_order(p1, p2[0], f"cut{steps}")
    material, stop = material_for(p1[0], order, f"cut{steps}"), Stop()
    first = loop_for(material, stop)
    first.stepper.run = asking_after(first, stop, steps=steps)  # type: ignore[method-assign]
    assert first.run_to_end(nothing).outcome == "yielded"
    second = loop_for(material)
    assert second.progress.step == steps
    second.run_to_end(nothing)
    assert end(second) == end(uncut)


def test_the_micro_batch_changes_rounding_alone(p1, p2) -> None:
    order = p3_order(p1, p2[0], "batches")
    found = []
    for size in (1, 4):
        prepared = prepared_for(material := material_for(p1[0], order, "batches"))
        job = material.job
        stepper = Stepper(prepared, material.blocks, Still(prepared), train=job.train, data=job.data, only_seen=False)
        result = stepper.run(3, lr=0.0, plan=plan(size), scale=LossScale(value=1.0), stop=Stop())
        found.append((result, {name: one.grad.clone() for name, one in prepared.trainable.items()}))
    (one, first), (four, second) = found

    assert one.structure is not None
    assert one.structure["strength"] == four.structure["strength"] == 1
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=1e-7)


class Still:
    """An optimizer that moves nothing."""

    def __init__(self, prepared: Any) -> None:
        self._prepared = prepared

    def zero_grad(self) -> None:
        for one in self._prepared.trainable.values():
            one.grad = None

    def step(self, lr: float, *, gradient_factor: Any = 1.0) -> None:
        return None

    def changed(self) -> tuple[int, int]:
        return 0, 0


def test_without_weights_it_is_a_p2_of_rows_and_adapters_to_the_bit(p1) -> None:
    folder, run = p1
    order = order_for(folder, of="tiny_p2", name="both", source=run, **SHORT, lora__train="lora+rows", train__seed=7)
    fresh = prepared_for(material := material_for(folder, order, "both"))
    start = RunDir(root=folder / "runs" / "start")
    write_checkpoint(start, TrainingState(
        job="start", step=1, fingerprint="f", parent=None, probe_loss=None, state={}, optimizer={},
        trainable=copy_to_host(fresh.tensors),
    ))  # fmt: skip
    material.run.vocab.rename(start.vocab)
    control = order_for(
        folder, of="tiny_p3", name="control", source=start, **SHORT, **QUICK, **CONTROL, lora__update="all",
        train__seed=7,
    )  # fmt: skip
    two = run_to_end(p1, order, "both")
    three = run_to_end(p1, control, "control")

    assert two.prepared.trainable.keys() == three.prepared.trainable.keys()
    assert bits(two) == bits(three)


def bits(loop: Loop) -> dict[str, bytes]:
    tensors = copy_to_host(loop.prepared.tensors) | copy_to_host(loop.optimizer.state_tensors())
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def test_only_the_rows_of_groups_get_an_auxiliary_gradient(p1, p2) -> None:
    order = p3_order(p1, p2[0], "which")
    structure = prepared_for(material_for(p1[0], order, "which")).structure
    assert structure is not None
    (side,) = structure._sides
    side.rows.grad = torch.zeros_like(side.rows)

    told = structure.add_gradients(5, 8.0)
    eight = side.rows.grad.clone()
    side.rows.grad.zero_()
    structure.add_gradients(5, 1.0)

    moved = torch.linalg.vector_norm(side.rows.grad, dim=1) > 0
    assert not moved[~structure.named(len(moved))].any()
    assert moved.any()
    assert torch.equal(eight, 8 * side.rows.grad)
    assert told is not None
    assert told["input"]["share"] == 1


def test_rows_alone_may_train_while_the_adapter_stands_and_is_kept(p1, p2) -> None:
    order = p3_order(p1, p2[0], "rows", lora__train="rows")
    loop = run_to_end(p1, order, "rows")
    before = prepared_for(material_for(p1[0], order, "rows")).tensors

    assert set(loop.prepared.trainable) == {"rows"}
    assert any("lora_B" in name for name in loop.prepared.tensors)
    for name, tensor in loop.prepared.tensors.items():
        assert torch.equal(tensor, before[name]) == ("lora_" in name)


def test_groups_of_other_words_are_refused_with_the_counts(p1, p2, tmp_path) -> None:
    groups = tmp_path / "groups.jsonl"
    line = {"morpheme": "-ing", "examples": ["running", "laughing"], "bases": ["run", "laugh"]}
    groups.write_text(json.dumps(line) + "\n")
    order = p3_order(p1, p2[0], "refused", morphemes__groups=str(groups))

    with pytest.raises(InputError, match=r"no pair is left to train.*the word has no row of its own"):
        prepared_for(material_for(p1[0], order, "refused"))


def test_weight_decay_leaves_rows_of_words_that_were_not_met_where_they_were(
    p1: tuple[Path, RunDir], p2: tuple[RunDir, float]
) -> None:
    still = {"geometry__anchor": 0.0, "geometry__norm": 0.0, "train__batch": 2}
    order = p3_order(p1, p2[0], "decays", train__weight_decay=0.5, **CONTROL, **still)
    assert order.training.train.row_steps == "own"

    require_rest(loop_for(material_for(p1[0], order, "decays")))
