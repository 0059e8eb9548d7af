"""Rows read from files in pieces are the rows that were written, in every dtype."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from wake2vec.contract.errors import InputError
from wake2vec.show.geometry.matrix import InMemory, Part, chunks, even_choice, matrices_in


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_rows_come_back_as_they_were_written(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = torch.randn(37, 5).to(dtype)
    save_file({"a": torch.zeros(3), "rows": whole, "z": torch.ones(2, 2)}, tmp_path / "x.safetensors")

    matrix = matrices_in(tmp_path / "x.safetensors")["rows"]

    expected = whole.float().numpy()
    assert matrix.shape == (37, 5)
    assert np.array_equal(np.concatenate([rows for _, rows in chunks(matrix, 10)]), expected)
    assert np.array_equal(matrix.take(np.array([36, 0, 7])), expected[[36, 0, 7]])
    assert [first for first, _ in chunks(matrix, 10)] == [0, 10, 20, 30]


def test_a_part_ends_where_the_rows_in_use_end() -> None:
    matrix = Part(InMemory(np.arange(20, dtype=np.float32).reshape(10, 2)), 7)

    assert matrix.shape == (7, 2)
    assert len(np.concatenate([rows for _, rows in chunks(matrix, 4)])) == 7


def test_matrices_in_memory_are_read_like_files() -> None:
    values = torch.randn(9, 4, dtype=torch.bfloat16)

    assert np.array_equal(InMemory(values).take(np.array([8, 1])), values.float().numpy()[[8, 1]])


def test_a_choice_is_spread_evenly_and_never_twice_the_same() -> None:
    assert even_choice(10, 5).tolist() == [0, 2, 4, 6, 8]
    assert even_choice(3, 5).tolist() == [0, 1, 2]
    assert len(set(even_choice(196_000, 5000).tolist())) == 5000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 5) + b"[1,2]",
        struct.pack("<Q", 9) + b'{"a": 1}\n',
    ],
)
def test_what_is_no_safetensors_file_is_told(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(body)

    with pytest.raises(InputError, match=r"x\.safetensors"):
        matrices_in(tmp_path / "x.safetensors")


def test_a_file_that_was_cut_short_is_told(tmp_path: Path) -> None:
    save_file({"rows": torch.randn(50, 5)}, tmp_path / "x.safetensors")
    whole = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(whole[:-100])

    with pytest.raises(InputError, match="cut short"):
        matrices_in(tmp_path / "x.safetensors")
