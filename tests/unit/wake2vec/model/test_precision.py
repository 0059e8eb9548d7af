"""Rows in 16 bits: rounding by a draw against a recomputation in numpy, in exact arithmetic, and what does not fit."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from wake2vec.contract.errors import ModelError
from wake2vec.model import precision
from wake2vec.model.dropout import salt_of
from wake2vec.model.precision import HeldRows, rounded

Exact = npt.NDArray[np.float64]
CERTAINTY = 1e-9  # with which a right implementation would miss a bound
SCALES = (1e-30, 3e-5, 0.02, 1.0, 700.0, 1e30)


def neighbours(values: torch.Tensor) -> tuple[Exact, Exact]:
    """The numbers of 8 significant bits at both sides of fp32 values (all normal), away from 0 the second; in fp64."""
    exact = values.double().numpy()
    spacing = 2.0 ** (np.frexp(exact)[1].astype(np.float64) - 8)  # 2^(e-1) <= |x| < 2^e
    low = np.trunc(exact / spacing) * spacing
    return low, np.where(low == exact, low, low + np.sign(exact) * spacing)


def drawn(rows: int, columns: int, salt: int, first_row: int = 0) -> npt.NDArray[np.int64]:
    """The draws 0 to 65,535 again, by the published definition of lowbias32, in numbers that do not wrap."""

    def mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        x = x ^ (x >> np.uint64(16))
        x = x * np.uint64(0x7FEB352D) & np.uint64(0xFFFFFFFF)
        x = x ^ (x >> np.uint64(15))
        x = x * np.uint64(0x846CA68B) & np.uint64(0xFFFFFFFF)
        return x ^ (x >> np.uint64(16))

    row = mix(np.arange(first_row, first_row + rows, dtype=np.uint64))
    pair = np.arange(1, (columns + 1) // 2 + 1, dtype=np.uint64) * np.uint64(0x9E3779B9) & np.uint64(0xFFFFFFFF)
    bits = mix(mix(row ^ np.uint64(salt & 0xFFFFFFFF))[:, None] + pair[None] & np.uint64(0xFFFFFFFF))
    halves = np.stack([bits & np.uint64(0xFFFF), bits >> np.uint64(16)], axis=2).reshape(rows, -1)[:, :columns]
    return (halves.astype(np.int64) + 32768) % 65536  # signed halves, moved up


def some(rows: int, columns: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("scale", SCALES)
def test_a_draw_is_what_the_definition_says_to_the_bit(scale: float) -> None:
    values, salt = some(40, 33, scale), -123456789
    low, high = neighbours(values)
    share = (values.double().numpy() - low) / np.where(high == low, 1.0, high - low)

    up = share > 1 - drawn(40, 33, salt, first_row=7) / 65536 - 1 / 65536  # the sum of lower half and draw carries
    found = rounded(values, torch.bfloat16, first_row=7, salt=salt).double().numpy()

    assert np.array_equal(found, np.where(up, high, low))


@pytest.mark.parametrize("scale", SCALES)
def test_its_mean_is_the_value_and_it_never_goes_past_a_neighbour(scale: float) -> None:
    draws = 1 << 16
    margin = math.sqrt(math.log(2 / CERTAINTY) / (2 * draws))  # Hoeffding, of a mean of draws within [0, 1]
    for value in (some(1, 6, scale)[0]).tolist():
        values = torch.full((256, draws // 256), value)
        low, high = neighbours(values[:1, :1])

        found = rounded(values, torch.bfloat16, first_row=0, salt=salt_of(1, 2, "rows")).double().numpy()

        assert set(np.unique(found)) <= {low.item(), high.item()}
        share = (values[0, 0].double().item() - low.item()) / (high.item() - low.item())
        assert abs((found == high.item()).mean() - share) < margin


def test_draws_of_rows_columns_steps_and_matrices_have_nothing_to_do_with_one_another() -> None:
    halfway = torch.full((256, 512), 1.0 + 2.0**-8)  # up in one draw of two
    first, *others = (
        rounded(halfway, torch.bfloat16, first_row=0, salt=salt_of(seed, step, name)) > 1.0
        for seed, step, name in (
            (1, 2, "rows.input"),
            (1, 3, "rows.input"),
            (1, 2, "rows.output"),
            (2, 2, "rows.input"),
        )
    )
    pairs = [(first, other) for other in others]
    pairs += [(first[1:], first[:-1]), (first[:, 1:], first[:, :-1]), (first[:, 2:], first[:, :-2])]
    for one, other in pairs:
        margin = math.sqrt(math.log(2 / CERTAINTY) / (2 * one.numel()))
        assert abs(float((one ^ other).double().mean()) - 0.5) < margin


def test_what_16_bits_can_hold_stays_and_so_does_what_is_no_number() -> None:
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).view(256, 256)
    for salt in (0, 1, -1, salt_of(42, 9, "rows")):
        found = rounded(every.float(), torch.bfloat16, first_row=0, salt=salt)
        assert torch.equal(torch.nan_to_num(found, nan=7.0), torch.nan_to_num(every, nan=7.0))
        assert torch.equal(found.isnan(), every.isnan())
    all_ones = torch.tensor([[0x7FFFFFFF, -1]], dtype=torch.int32).view(torch.float32)  # a carry would make them zeros
    assert rounded(all_ones, torch.bfloat16, first_row=0, salt=3).isnan().all()


@pytest.mark.parametrize("columns", [1, 7, 64])
def test_slabs_of_a_matrix_draw_what_the_whole_draws(columns: int) -> None:
    values = some(50, columns)

    parts = [rounded(values[at : at + 13], torch.bfloat16, first_row=at, salt=5) for at in range(0, 50, 13)]

    assert torch.equal(torch.cat(parts), rounded(values, torch.bfloat16, first_row=0, salt=5))


def test_fp16_is_rounded_to_the_nearest() -> None:
    values = some(50, 64)

    found = rounded(values, torch.float16, first_row=0, salt=5)

    assert np.array_equal(found.numpy(), values.double().numpy().astype(np.float16))


def hold(values: torch.Tensor, dtype: torch.dtype) -> HeldRows:
    return HeldRows.of(nn.Parameter(values), dtype, name="rows", seed=1)


@pytest.mark.parametrize("spoilt", [65_520.0, -1e6, math.inf, math.nan])
def test_rows_beyond_the_range_of_fp16_are_refused_in_words(spoilt: float) -> None:
    values = some(5, 8)
    values[3, 4] = spoilt

    with pytest.raises(ModelError, match=r'float16 cannot hold rows: it has numbers from 6e-05 to 65,504.*"fp32"'):
        hold(values, torch.float16)
    if abs(spoilt) < math.inf:
        assert torch.equal(hold(values, torch.bfloat16).isfinite(), values.isfinite())


def test_rows_too_small_for_fp16_are_refused_and_small_numbers_of_a_row_or_rows_of_zeros_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "CHUNK_BYTES", 4 * 8 * 2)  # the last row is in a slab of its own
    values = some(5, 8)
    values[:, 0] = 1e-12
    values[2] = 0
    assert torch.equal(hold(values, torch.float16), values.half())

    values[4] = some(1, 8, 1e-8)[0]
    with pytest.raises(ModelError, match="float16 cannot hold rows"):
        hold(values, torch.float16)
    assert (hold(values, torch.bfloat16).float() - values).norm() < values.norm() / 128


def test_the_gradient_of_held_rows_is_fp32_and_goes_with_them() -> None:
    rows = hold(some(5, 8), torch.bfloat16)

    rows.grad = torch.ones(5, 8)
    rows.grad += 2.0**-12  # which 16 bits would not see

    assert (rows.grad - 1).unique().tolist() == [2.0**-12]
    rows.grad = None
    assert rows.grad is None
