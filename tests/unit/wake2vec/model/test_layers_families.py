"""Every family of causal LMs on every layer path: the library's eager function, or not that path."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.families import FAMILIES, VARIATIONS, Family, build
from wake2vec.contract.plan import LIBRARY, WRITTEN_OUT, WRITTEN_OUT_FAMILIES, LayerPath
from wake2vec.model.layers.attention import register_attention
from wake2vec.model.layers.paths import use_layers

ALL = {**FAMILIES, **VARIATIONS}
LENGTH = 40  # longer than the windows of 16
RIGHT = 1e-4  # of the largest value

# whose layers are of the written-out kind; all others run the library's
FAST = {
    "llama", "qwen2", "qwen3", "mistral", "phi3", "ministral", "cwm", "smollm3", "internlm3", "iquestcoder",
    "llama, biases", "llama, tied", "llama, wide heads", "llama, one group", "llama, no groups", "llama, yarn",
    "llama, llama3", "llama, linear", "qwen2, yarn", "qwen2, window", "qwen2, tied", "mistral, window",
    "qwen3, window", "qwen3, wide heads",
    "mistral, no window", "phi3, part of a head", "phi3, window", "smollm3, every second", "smollm3, all rotated",
    "granite, none", "granite, attention",
}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_every_path_of_a_family_is_the_librarys_function(name: str) -> None:
    expected = there_and_back(build(ALL[name]).requires_grad_(False))
    model = loaded(ALL[name])

    given: dict[LayerPath, LayerPath] = {}
    for path in (*LIBRARY, *WRITTEN_OUT):
        used = use_layers(model, path)
        given[path] = used.path
        assert used.path == path or (used.path == "recompute" and used.note)
        for found, right in zip(there_and_back(model), expected, strict=True):
            assert float((found - right).abs().max() / right.abs().max()) < RIGHT, used

    assert {given[path] for path in LIBRARY} == set(LIBRARY)
    assert {given[path] for path in WRITTEN_OUT} == (set(WRITTEN_OUT) if name in FAST else {"recompute"})


def test_the_list_is_long_enough_to_be_every_family() -> None:
    assert len(FAMILIES) >= 75
    assert set(ALL) >= FAST
    assert FAST & set(FAMILIES) == WRITTEN_OUT_FAMILIES  # what estimates go by


def loaded(family: Family) -> Any:
    """As a job has it: our attention where the family can be given any, else the library's eager one."""
    try:
        return build(family, attention=register_attention()).requires_grad_(False)
    except (ValueError, KeyError):  # Falcon has a table of its own
        return build(family).requires_grad_(False)


def there_and_back(model: Any) -> tuple[Tensor, Tensor]:
    """Last hidden states, and the gradient of the input embeddings."""
    ids = torch.randint(3, 96, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    start: list[Tensor] = []

    def leaf(_module: Any, _inputs: Any, out: Tensor) -> Tensor:
        start.append(out.detach().requires_grad_())
        return start[0]

    hook = model.get_input_embeddings().register_forward_hook(leaf)
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    hook.remove()
    end = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3))
    return hidden.detach(), torch.autograd.grad(hidden, start[0], end)[0]
