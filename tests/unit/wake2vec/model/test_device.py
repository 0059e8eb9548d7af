"""What this process sees of its card."""

from __future__ import annotations

import pytest
import torch

from wake2vec.model.device import brief, memory_limit, this_device


def test_without_a_card_it_is_the_cpu_which_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert this_device() == torch.device("cpu")
    assert memory_limit(this_device()) is None


def test_a_card_has_its_index_since_pytorch_refuses_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert this_device().index == 0


def test_memory_that_ran_out_is_told_in_a_line() -> None:
    said = (
        "CUDA out of memory. Tried to allocate 44.00 MiB. GPU 0 has a total capacity of 79.18 GiB of which 74.97 GiB "
        "is free. If reserved memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"
    )
    assert brief(torch.OutOfMemoryError(said)) == "CUDA out of memory. Tried to allocate 44.00 MiB"
    assert brief(MemoryError()) == "MemoryError"
    assert brief(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED\nmore")) == "CUBLAS_STATUS_ALLOC_FAILED"
