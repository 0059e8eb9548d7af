"""What this process sees of its card."""

from __future__ import annotations

import pytest
import torch

from wake2vec.device import memory_limit, this_device


def test_without_a_card_it_is_the_cpu_which_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert this_device() == torch.device("cpu")
    assert memory_limit(this_device()) is None


def test_a_card_has_its_index_since_pytorch_refuses_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert this_device().index == 0
