"""One optimizer step: the same gradient and the same logged loss under every plan (G5, G6)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny import loop_for, material_for, order_for, plan, run_of
from wake2vec.contract import failpoints
from wake2vec.contract.errors import Diverged, OutOfMemory
from wake2vec.model.device import copy_to_host, is_out_of_memory
from wake2vec.train.loop import Loop
from wake2vec.train.state import LossScale
from wake2vec.train.stopping import Stop

NEVER = Stop()


def p1_loop(folder: Path, **changes: Any) -> Loop:
    return loop_for(material_for(folder, order_for(folder, **changes)))


def p2_loop(folder: Path, **changes: Any) -> Loop:
    """A P2 with dropout on the rows of a P1 of a few steps."""
    first = p1_loop(folder, train__steps=2)
    first.run_to_end(at_evaluation=lambda: None)
    order = order_for(folder, of="tiny_p2", name="p2", source=run_of(folder), lora__dropout=0.1, **changes)
    return loop_for(material_for(folder, order, "p2"))


def gradients(loop: Loop, micro_batch: int, splits: int = 1) -> tuple[dict[str, Tensor], float]:
    """Gradients of step 0 and its logged loss; nothing moves, since the rate is 0 and there is no decay."""
    result = loop.stepper.run(0, lr=0.0, plan=plan(micro_batch, splits), scale=LossScale(value=1.0), stop=NEVER)
    assert result is not None
    return {name: parameter.grad.clone() for name, parameter in loop.prepared.trainable.items()}, result.loss  # type: ignore[union-attr]


@pytest.mark.parametrize("make", [p1_loop, p2_loop])
def test_any_micro_batch_gives_the_same_gradient_and_the_same_logged_loss(tmp_path: Path, make: Any) -> None:
    loop = make(tmp_path)
    expected, loss = gradients(loop, 4)

    for micro_batch in (2, 1):
        found, found_loss = gradients(loop, micro_batch)
        for name, gradient in expected.items():
            error = torch.linalg.vector_norm(found[name] - gradient) / torch.linalg.vector_norm(gradient).clamp(
                min=1e-12
            )
            assert error < 1e-6, name
        assert found_loss == pytest.approx(loss, rel=1e-6)


def test_a_shorter_context_counts_the_same_tokens(tmp_path: Path) -> None:
    loop = p1_loop(tmp_path)
    whole = loop.stepper.run(0, lr=0.0, plan=plan(2), scale=LossScale(value=1.0), stop=NEVER)
    cut = loop.stepper.run(0, lr=0.0, plan=plan(2, 2), scale=LossScale(value=1.0), stop=NEVER)

    assert whole is not None
    assert cut is not None
    assert cut.tokens == whole.tokens
    assert cut.loss != whole.loss


@pytest.mark.parametrize("load", ["nf4", pytest.param("fp32", marks=pytest.mark.sweep)])
def test_an_evaluation_between_steps_leaves_every_gradient_alive(tmp_path: Path, load: str) -> None:
    loop = p2_loop(tmp_path, model__load=load)
    before, _ = gradients(loop, 4)
    assert loop.evaluate()
    after, _ = gradients(loop, 4)

    assert before.keys() == after.keys()
    for name, gradient in before.items():
        assert torch.equal(after[name], gradient), name
    assert all(bool(gradient.any()) for name, gradient in after.items() if "lora_B" in name)


def test_rows_that_a_step_did_not_see_stay_where_they_are(tmp_path: Path) -> None:
    loop = p1_loop(tmp_path, vocab__update="seen")
    rows = loop.prepared.trainable["rows"]
    start = rows.detach().clone()

    loop.stepper.run(0, lr=0.1, plan=plan(4), scale=LossScale(value=1.0), stop=NEVER)

    moved = (rows != start).any(dim=1)
    assert 0 < int(moved.sum()) < rows.shape[0]


def test_with_update_all_every_row_moves(tmp_path: Path) -> None:
    loop = p1_loop(tmp_path, vocab__update="all")
    rows = loop.prepared.trainable["rows"]
    start = rows.detach().clone()

    loop.stepper.run(0, lr=0.1, plan=plan(4), scale=LossScale(value=1.0), stop=NEVER)

    assert bool((rows != start).any(dim=1).all())


def trained(folder: Path, monkeypatch: pytest.MonkeyPatch, rule: str) -> tuple[Loop, dict[str, Tensor]]:
    monkeypatch.setattr(failpoints, "_hits", Counter())
    monkeypatch.setenv(failpoints.VARIABLE, rule)
    loop = p1_loop(folder, train__steps=4, train__micro_batch=4)
    monkeypatch.setattr(failpoints, "_hits", Counter())
    loop.run_to_end(at_evaluation=lambda: None)
    return loop, copy_to_host(loop.prepared.tensors)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return trained(tmp_path_factory.mktemp("undisturbed"), monkeypatch, "")[1]


@pytest.mark.parametrize(
    ("place", "hit"),
    [
        ("step.forward", 1),
        ("step.backward", 3),
        ("step.clip", 1),
        *(
            pytest.param(*one, marks=pytest.mark.sweep)
            for one in (("step.forward", 3), ("step.backward", 1), ("step.clip", 3))
        ),
    ],
)
def test_out_of_memory_costs_no_step_and_changes_no_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Tensor], place: str, hit: int
) -> None:
    loop, found = trained(tmp_path, monkeypatch, f"{place}=oom:{hit},{place}=oom:{hit + 1}")

    assert [row["step"] for row in loop.progress.rows if row["kind"] == "step"] == [1, 2, 3, 4]
    assert loop.progress.plan.micro_batch == 2
    assert sum(row.get("event") == "oom" for row in loop.progress.rows) == 2
    for name, tensor in undisturbed.items():
        assert torch.allclose(found[name], tensor, atol=1e-6, rtol=0), name


def test_out_of_memory_in_the_update_ends_the_attempt_with_a_leaner_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failpoints, "_hits", Counter())
    monkeypatch.setenv(failpoints.VARIABLE, "step.update=oom:2")
    loop = p1_loop(tmp_path, train__steps=4, train__micro_batch=4)

    with pytest.raises(OutOfMemory, match="update"):
        loop.run_to_end(at_evaluation=lambda: None)

    assert loop.pulse.now.plan is not None
    assert loop.pulse.now.plan["micro_batch"] == 2


def test_when_no_smaller_plan_is_left_the_job_ends_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failpoints, "_hits", Counter())
    monkeypatch.setenv(failpoints.VARIABLE, "step.forward=oom:1+")
    loop = p1_loop(tmp_path, train__steps=4, train__allow_shorter_context=False)

    with pytest.raises(OutOfMemory, match="no smaller plan"):
        loop.run_to_end(at_evaluation=lambda: None)


def test_a_loss_that_is_not_finite_diverges_before_anything_moves(tmp_path: Path) -> None:
    loop = p1_loop(tmp_path)
    rows = loop.prepared.trainable["rows"]
    with torch.no_grad():
        rows[:] = torch.nan

    with pytest.raises(Diverged, match="step 0"):
        loop.stepper.run(0, lr=0.1, plan=plan(4), scale=LossScale(value=1.0), stop=NEVER)

    assert loop.optimizer.state_tensors()["step"] == 0


def test_a_stop_in_the_middle_of_a_step_changes_nothing(tmp_path: Path) -> None:
    loop = p1_loop(tmp_path)
    start = copy_to_host(loop.prepared.tensors)
    stop = Stop()
    stop.ask("for this test")

    assert loop.stepper.run(0, lr=0.1, plan=plan(1), scale=LossScale(value=1.0), stop=stop) is None

    for name, tensor in loop.prepared.tensors.items():
        assert torch.equal(tensor, start[name])


def test_the_loss_scale_halves_on_overflow_and_grows_after_clean_steps() -> None:
    scale = LossScale(value=1024.0, grow_after=3)
    scale.halve()
    assert scale.value == 512.0
    for _ in range(3):
        scale.count_clean()
    assert (scale.value, scale.clean_steps) == (1024.0, 0)


def test_a_scale_of_one_stays() -> None:
    scale = LossScale(value=1.0, grow_after=1)
    scale.count_clean()
    assert scale.value == 1.0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (MemoryError(), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
