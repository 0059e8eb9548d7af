"""The twin tells a layer that is written out here from one that only looks like it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama import modeling_llama
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from tests.families import FAMILIES, build
from wake2vec.model.layers.frozen_linear import UnknownLayer
from wake2vec.model.layers.paths import decoder_layers, use_layers
from wake2vec.model.layers.twin import check_twins


class Weaker(LlamaDecoderLayer):
    """Llama's modules under Llama's names; its output counts a little less."""

    def forward(self, hidden_states: Tensor, **more: Any) -> Tensor:
        return hidden_states + 0.99 * (super().forward(hidden_states, **more) - hidden_states)


class Backwards(LlamaDecoderLayer):
    """Computes Llama's function, but lets half of the gradient through."""

    def forward(self, hidden_states: Tensor, **more: Any) -> Tensor:
        out = super().forward(hidden_states, **more)
        return 0.5 * out + 0.5 * out.detach()


class Capped(LlamaDecoderLayer):
    """Caps its attention's output where that is very large, which at common values changes almost nothing."""

    def forward(self, hidden_states: Tensor, **more: Any) -> Tensor:
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **more)
        middle = hidden_states + 50 * torch.tanh(attended / 50)
        return middle + self.mlp(self.post_attention_layernorm(middle))


class Choosy(LlamaDecoderLayer):
    """Wants more than a config and an index."""

    def __init__(self, config: LlamaConfig, layer_idx: int, *, secret: str) -> None:
        super().__init__(config, layer_idx)
        self.secret = secret


def model_of(kind: Any, at: int = 2, **more: Any) -> Any:
    """A Llama with one layer of another make."""
    model = build(FAMILIES["llama"], attention="sdpa").requires_grad_(False)
    other = kind(model.config, at, **more).eval().requires_grad_(False)
    other.load_state_dict(model.model.layers[at].state_dict())
    model.model.layers[at] = other
    return model


@pytest.mark.parametrize("kind", [Weaker, Backwards, Capped])
def test_modules_with_llamas_names_are_no_llama(kind: Any) -> None:
    model = model_of(kind)

    with pytest.raises(UnknownLayer, match=f"layer 2, {kind.__name__}: its function is another one"):
        check_twins(model, decoder_layers(model))
    used = use_layers(model, "lean")
    assert used.path == "recompute"
    assert kind.__name__ in used.note


def test_a_class_that_cannot_be_made_small_is_left_to_the_library() -> None:
    model = model_of(Choosy, secret="x")

    with pytest.raises(UnknownLayer, match=r"Choosy: no small twin of it can be run \(TypeError"):
        check_twins(model, decoder_layers(model))


def test_looking_at_twins_leaves_the_random_numbers_and_the_model_alone() -> None:
    model = build(FAMILIES["smollm3"], hidden_size=48)  # a config that no other test has
    before, state = {name: x.clone() for name, x in model.state_dict().items()}, torch.get_rng_state()

    check_twins(model, decoder_layers(model))

    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert model.config.hidden_size == 48


def test_each_kind_of_layer_has_one_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = modeling_llama.LlamaDecoderLayer.__init__

    def count(self: Any, config: Any, layer_idx: int) -> None:
        made.append(layer_idx)
        original(self, config, layer_idx)

    model = build(FAMILIES["llama"], num_hidden_layers=7)
    monkeypatch.setattr(modeling_llama.LlamaDecoderLayer, "__init__", count)

    check_twins(model, decoder_layers(model))
    check_twins(model, decoder_layers(model))

    assert made == [0]
