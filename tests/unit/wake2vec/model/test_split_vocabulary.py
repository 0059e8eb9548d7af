"""How gradients reach new rows, and how the vocabulary is cut into blocks."""

from __future__ import annotations

import pytest
import torch

from wake2vec.model.split_vocabulary import add_row_gradients, spans


def test_repeated_new_tokens_add_up_and_base_tokens_add_nothing() -> None:
    total = torch.zeros(3, 2)
    ids = torch.tensor([[0, 5, 7], [5, 1, 5]])
    grad = torch.arange(12.0).view(2, 3, 2)

    add_row_gradients(total, ids, grad, 5)

    assert torch.equal(total, torch.stack([grad[0, 1] + grad[1, 0] + grad[1, 2], torch.zeros(2), grad[0, 2]]))


@pytest.mark.parametrize("count", [0, 1, 63, 64, 151_665, 44_223])
@pytest.mark.parametrize("size", [64, 8192])
def test_blocks_cover_every_id_once_and_only_the_last_is_odd(count: int, size: int) -> None:
    cut = list(spans(count, size))

    assert [stop for _, stop in cut[:-1]] == [start for start, _ in cut[1:]]
    assert sum(stop - start for start, stop in cut) == count
    assert all((stop - start) % 64 == 0 for start, stop in cut[:-1])
    assert all(0 < stop - start <= size for start, stop in cut)
