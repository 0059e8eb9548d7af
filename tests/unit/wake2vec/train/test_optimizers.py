"""Our optimizers against transformers' and torch's, and the slice against a masked full matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers.optimization import Adafactor as TheirAdafactor

from wake2vec.contract.errors import CheckpointCorrupt, Diverged, ModelError
from wake2vec.model import precision
from wake2vec.model.dropout import salt_of
from wake2vec.model.precision import HeldRows, rounded, row_chunks
from wake2vec.train import optimizers as optim
from wake2vec.train.optimizers import Adafactor, AdamW, clip_factor, gradient_norm, make_optimizer

BASE, NEW, WIDTH, STEPS = 70, 30, 12, 30


def gradients(rows: int = NEW, *, dtype: torch.dtype = torch.float64, zero_rows: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    found = [torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64) for _ in range(STEPS)]
    for index, gradient in enumerate(found):
        gradient *= 1 + index % 5
        gradient[:zero_rows] = 0
    return [gradient.to(dtype) for gradient in found]


def start(rows: int = NEW, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)


def run(
    make: Callable[[dict[str, nn.Parameter]], optim.Optimizer], value: torch.Tensor, grads: list[torch.Tensor]
) -> torch.Tensor:
    parameter = nn.Parameter(value.clone())
    optimizer = make({"rows": parameter})
    for gradient in grads:
        parameter.grad = gradient.clone()
        optimizer.step(5e-3)
    return parameter.detach()


def run_theirs(
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], value: torch.Tensor, grads: list[torch.Tensor]
) -> torch.Tensor:
    parameter = nn.Parameter(value.clone())
    optimizer = make([parameter])
    for gradient in grads:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def their_adafactor(parameters: list[nn.Parameter], **more: float) -> TheirAdafactor:
    return TheirAdafactor(parameters, lr=5e-3, scale_parameter=False, relative_step=False, warmup_init=False, **more)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adafactor_is_that_of_transformers(weight_decay: float) -> None:
    ours = run(lambda p: Adafactor(p, weight_decay=weight_decay), start(), gradients(zero_rows=3))

    theirs = run_theirs(lambda p: their_adafactor(p, weight_decay=weight_decay), start(), gradients(zero_rows=3))

    assert relative(ours, theirs) < 1e-12


def test_adafactor_on_a_vector_is_that_of_transformers() -> None:
    grads = [gradient[0] for gradient in gradients()]

    ours = run(lambda p: Adafactor(p), start()[0], grads)

    assert relative(ours, run_theirs(their_adafactor, start()[0], grads)) < 1e-12


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_is_that_of_torch(weight_decay: float) -> None:
    ours = run(lambda p: AdamW(p, weight_decay=weight_decay), start(), gradients())

    theirs = run_theirs(lambda p: torch.optim.AdamW(p, lr=5e-3, weight_decay=weight_decay), start(), gradients())

    assert relative(ours, theirs) < 1e-12


def masked(
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """New rows after training the whole matrix with the gradient of its base rows set to zero."""
    grads = [torch.cat([torch.zeros(BASE, WIDTH, dtype=dtype), gradient.to(dtype)]) for gradient in gradients()]
    value = torch.cat([torch.ones(BASE, WIDTH, dtype=dtype), start(dtype=dtype)])
    end = run_theirs(make, value, grads)
    assert torch.equal(end[:BASE], value[:BASE])
    return end[BASE:]


def test_adamw_on_the_slice_is_adamw_on_the_masked_matrix() -> None:
    expected = masked(lambda p: torch.optim.AdamW(p, lr=5e-3, weight_decay=0.0))

    assert relative(run(lambda p: AdamW(p), start(), gradients()), expected) < 1e-12


def test_adafactor_on_the_slice_is_the_masked_matrix_with_the_clip_threshold_rescaled() -> None:
    # RMS over all rows is sqrt(new / all) of that over the slice: Adafactor's clip is the only statistic that differs
    rule = math.sqrt((BASE + NEW) / NEW)

    ours = run(lambda p: Adafactor(p, clip_threshold=rule), start(), gradients())

    assert relative(ours, masked(their_adafactor)) < 1e-9
    assert relative(run(lambda p: Adafactor(p), start(), gradients()), masked(their_adafactor)) > 1e-5


def test_adafactor_in_fp32_stays_within_rounding_of_the_masked_matrix() -> None:
    rule = math.sqrt((BASE + NEW) / NEW)
    value = start(dtype=torch.float32)

    ours = run(lambda p: Adafactor(p, clip_threshold=rule), value, gradients(dtype=torch.float32))

    assert relative(ours - value, masked(their_adafactor) - start()) < 1e-5


@pytest.mark.parametrize("make", [Adafactor, AdamW])
def test_the_chunk_size_does_not_change_an_update(make: type, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(make, start(), gradients())

    monkeypatch.setattr(precision, "CHUNK_BYTES", 4 * WIDTH * 7)

    assert len(list(row_chunks(start()))) == 5
    assert relative(run(make, start(), gradients()), whole) < 1e-13


@pytest.mark.parametrize("make", [Adafactor, AdamW])
def test_a_saved_and_loaded_optimizer_goes_on_with_the_same_bits(make: type) -> None:
    grads = gradients(dtype=torch.float32)
    straight = run(make, start(dtype=torch.float32), grads)

    first = {"rows": nn.Parameter(start(dtype=torch.float32))}
    before = make(first)
    for gradient in grads[:10]:
        first["rows"].grad = gradient.clone()
        before.step(5e-3)
    saved = {name: tensor.clone() for name, tensor in before.state_tensors().items()}
    second = {"rows": nn.Parameter(first["rows"].detach().clone())}
    after = make(second)
    after.load_state_tensors(saved)
    for gradient in grads[10:]:
        second["rows"].grad = gradient.clone()
        after.step(5e-3)

    assert torch.equal(second["rows"], straight)


@pytest.mark.parametrize("make", [Adafactor, AdamW])
def test_the_gradient_factor_is_a_multiplication_of_the_gradient(make: type) -> None:
    scaled = nn.Parameter(start())
    optimizer = make({"rows": scaled})
    for gradient in gradients():
        scaled.grad = gradient * 65536.0
        optimizer.step(5e-3, gradient_factor=1 / 65536)

    assert relative(scaled.detach(), run(make, start(), gradients())) < 1e-13


def test_a_state_of_another_job_is_refused() -> None:
    optimizer = Adafactor({"rows": nn.Parameter(start())})
    other = Adafactor({"rows": nn.Parameter(start(NEW + 1))}).state_tensors()

    with pytest.raises(CheckpointCorrupt, match=r"rows.row has shape"):
        optimizer.load_state_tensors(other)
    with pytest.raises(CheckpointCorrupt, match=r"differs in"):
        optimizer.load_state_tensors({})


def test_the_norm_is_that_of_torch_and_the_factor_clips_to_the_limit() -> None:
    parameters = {"b": nn.Parameter(start()), "a": nn.Parameter(start()[0])}
    for parameter in parameters.values():
        parameter.grad = parameter.detach() * 3

    norm = float(gradient_norm(parameters))

    theirs = torch.nn.utils.clip_grad_norm_(parameters.values(), 0.5)
    assert norm == pytest.approx(float(theirs), rel=1e-12)
    assert clip_factor(norm, 0.5) * norm == pytest.approx(float(gradient_norm(parameters)), rel=1e-12)
    assert clip_factor(0.1, 0.5) == 1.0


def test_a_gradient_that_is_not_finite_shows_in_the_norm() -> None:
    parameter = nn.Parameter(start())
    parameter.grad = torch.full_like(parameter, 1.0)
    parameter.grad[3, 4] = math.inf

    assert not math.isfinite(float(gradient_norm({"rows": parameter})))


def test_a_parameter_that_the_loss_does_not_reach_is_named() -> None:
    with pytest.raises(ModelError, match=r"lora_A.*got no gradient"):
        AdamW({"lora_A": nn.Parameter(start())}).step(1.0)


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("kind", ["adafactor", "adamw"])
def test_with_steps_of_its_own_a_row_met_late_begins_as_one_met_early(kind: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    gradient = torch.randn(8, generator=generator)
    rows = nn.Parameter(torch.ones(3, 8))
    optimizer = make_optimizer(kind, {"rows": rows}, weight_decay=0.1, own_steps=["rows"])
    moved = []
    for step in range(200):
        before = rows.detach().clone()
        rows.grad = torch.stack([gradient, gradient * (step >= 150), torch.zeros(8)])
        optimizer.step(1e-2)
        moved.append((rows.detach() - before).norm(dim=1))

    assert moved[150][1] == pytest.approx(float(moved[0][0]), rel=0.5)  # 12 and more times as far without
    assert not torch.stack(moved)[:150, 1].any()
    assert torch.equal(rows[2], torch.ones(8))  # decay left it alone too
    plain = make_optimizer(kind, {"rows": nn.Parameter(torch.ones(3, 8))}, weight_decay=0.0)
    assert set(optimizer.state_tensors()) == {*plain.state_tensors(), "rows.steps"}


@pytest.mark.parametrize("kind", ["adafactor", "adamw"])
def test_rows_that_are_met_from_the_first_step_move_alike_however_steps_are_counted(kind: Any) -> None:
    generator = torch.Generator().manual_seed(4)
    found = []
    for own in ([], ["rows"]):
        rows = nn.Parameter(torch.ones(5, 8))
        optimizer = make_optimizer(kind, {"rows": rows}, weight_decay=0.01, own_steps=own)
        generator.manual_seed(4)
        for _ in range(20):
            rows.grad = torch.randn(5, 8, generator=generator)
            optimizer.step(1e-2)
        found.append(rows.detach())

    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


HELD = (torch.bfloat16, torch.float16)


def held(dtype: torch.dtype, value: torch.Tensor | None = None) -> HeldRows:
    value = 0.05 * start(dtype=torch.float32) if value is None else value
    return HeldRows.of(nn.Parameter(value.to(dtype).float()), dtype, name="rows", seed=7)


@pytest.mark.parametrize("dtype", HELD)
@pytest.mark.parametrize("own", [[], ["rows"]])
@pytest.mark.parametrize("kind", ["adafactor", "adamw"])
def test_rows_in_16_bits_take_the_step_of_fp32_rounded_and_the_state_stays_fp32(
    kind: Any, own: list[str], dtype: torch.dtype
) -> None:
    rows = held(dtype)
    optimizer = make_optimizer(kind, {"rows": rows}, weight_decay=0.1, own_steps=own)
    for count, gradient in enumerate(gradients(dtype=torch.float32, zero_rows=2), start=1):
        full = nn.Parameter(rows.detach().float())
        beside = make_optimizer(kind, {"rows": full}, weight_decay=0.1, own_steps=own)
        beside.load_state_tensors(optimizer.state_tensors())
        before = rows.detach().clone()
        rows.grad, full.grad = gradient.clone(), gradient.clone()

        optimizer.step(5e-3, gradient_factor=0.5)
        beside.step(5e-3, gradient_factor=0.5)

        right = rounded(full.detach(), dtype, first_row=0, salt=salt_of(7, count, "rows"))
        assert torch.equal(rows.detach(), right)
        assert optimizer.changed() == (int((rows.detach() != before).sum()), rows.numel())
        for name, tensor in optimizer.state_tensors().items():
            assert torch.equal(tensor, beside.state_tensors()[name])
            assert tensor.dtype == (torch.int64 if name == "step" else torch.float32)


@pytest.mark.parametrize("dtype", HELD)
@pytest.mark.parametrize("kind", ["adafactor", "adamw"])
def test_rows_in_16_bits_without_a_gradient_never_change_by_a_bit(kind: Any, dtype: torch.dtype) -> None:
    rows = held(dtype)
    began = rows.detach().clone()
    optimizer = make_optimizer(kind, {"rows": rows}, weight_decay=0.1, own_steps=["rows"])
    for gradient in gradients(dtype=torch.float32, zero_rows=10) * 10:
        rows.grad = gradient
        optimizer.step(5e-2)

    assert torch.equal(rows.detach()[:10], began[:10])
    assert not (rows.detach()[10:] == began[10:]).all(dim=1).any()


def test_steps_too_small_for_bf16_add_up_by_draws_and_vanish_in_fp16() -> None:
    steps, size = 400, 1e-6  # of 0.05, whose neighbours are 2.4e-4 and 3.1e-5 away
    moved = {}
    for dtype in HELD:
        rows = held(dtype, torch.full((64, 256), 0.05))
        began = rows.detach().double()
        optimizer = AdamW({"rows": rows}, eps=0.0)
        for _ in range(steps):
            rows.grad = torch.ones_like(began, dtype=torch.float32)
            optimizer.step(size)  # Adam's step of a gradient that never changes
        moved[dtype] = float((rows.detach().double() - began).mean())

    # a draw changes an entry by one spacing at most, and what it adds has mean 0: by Hoeffding-Azuma the mean over all
    # entries is within sqrt(2 ln(2e9) steps / entries) spacings
    margin = 2.5e-4 * math.sqrt(2 * math.log(2e9) * steps / (64 * 256))
    assert abs(moved[torch.bfloat16] + steps * size) < margin < steps * size
    assert moved[torch.float16] == 0.0


@pytest.mark.parametrize("kind", ["adafactor", "adamw"])
def test_rows_in_bf16_go_on_with_the_same_bits_from_a_saved_state_and_in_chunks_of_any_size(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    grads = gradients(dtype=torch.float32)

    def trained(cut: int) -> torch.Tensor:
        rows = held(torch.bfloat16)
        optimizer = make_optimizer(kind, {"rows": rows})
        for step, gradient in enumerate(grads):
            if step == cut:
                state = {name: tensor.clone() for name, tensor in optimizer.state_tensors().items()}
                rows = held(torch.bfloat16, rows.detach().float())
                optimizer = make_optimizer(kind, {"rows": rows})
                optimizer.load_state_tensors(state)
            rows.grad = gradient.clone()
            optimizer.step(5e-3)
        return rows.detach()

    straight = trained(0)
    assert torch.equal(trained(11), straight)
    monkeypatch.setattr(precision, "CHUNK_BYTES", 4 * WIDTH * 7)
    if kind == "adamw":  # the sums of Adafactor are rounded otherwise in other chunks, in fp32 too
        assert torch.equal(trained(0), straight)


def test_a_row_that_leaves_the_range_of_fp16_is_told_before_anything_is_made_of_it() -> None:
    found = []
    for dtype in HELD:
        rows = held(dtype, torch.full((3, WIDTH), 65_000.0))
        optimizer = AdamW({"rows": rows})
        rows.grad = -torch.ones(3, WIDTH)
        rows.grad[1] = 0
        optimizer.step(1e3)
        found.append((rows, optimizer))

    (_, in_bf16), (_, in_fp16) = found
    assert in_bf16.changed() == (2 * WIDTH, 3 * WIDTH)
    with pytest.raises(
        Diverged, match=r'step 1: 24 numbers of the new rows left the range of 16 bits; vocab\.dtype = "bf16"'
    ):
        in_fp16.changed()
