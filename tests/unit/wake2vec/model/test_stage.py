"""Some layers of a model on one card, the others as places without weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.families import FAMILIES, build
from wake2vec.contract.errors import ModelError
from wake2vec.model.layers.paths import decoder_layers
from wake2vec.model.stage import Passage, Stage

IDS = torch.arange(12).unsqueeze(0)


def whole(family: str) -> Any:
    torch.manual_seed(1)
    return build(FAMILIES[family]).float().eval()


def dealt(family: str, *layers: int) -> list[Any]:
    """The model once for each card, the first of which asks the others in turn."""
    models = [whole(family) for _ in layers]

    def beyond(hidden: Tensor, passage: Passage) -> Tensor:
        for model, stage in zip(models[1:], stages[1:], strict=True):
            stage.arrived = hidden
            hidden = model.get_decoder()(input_ids=IDS[:, : hidden.shape[1]], use_cache=False).last_hidden_state
        return hidden

    stages = [Stage(rank=rank, dealt=layers, beyond=None if rank else beyond) for rank in range(len(layers))]
    for model, stage in zip(models, stages, strict=True):
        stage.install(model)
    stages[0].check(models[0], IDS)
    return models


def test_a_card_holds_its_layers_and_the_first_all_else_with_the_state_of_an_optimizer() -> None:
    first, second = (Stage(rank=rank, dealt=(3, 1)) for rank in (0, 1))

    for name in (
        "model.embed_tokens.weight",
        "rows.input",
        "step",
        "model.layers.2.mlp.up_proj.lora_A.default.weight.row",
    ):
        assert (first.holds(name), second.holds(name)) == (True, False)
    assert (first.holds("model.layers.3.mlp.weight"), second.holds("model.layers.3.mlp.weight")) == (False, True)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "olmo2"])
@torch.no_grad()
def test_dealt_out_it_computes_what_it_did(family: str) -> None:
    right = whole(family)(input_ids=IDS).logits
    first, *others = dealt(family, 1, 2, 1)

    assert torch.equal(first(input_ids=IDS).logits, right)
    assert [len(decoder_layers(model)) for model in (first, *others)] == [1, 2, 1]


@pytest.mark.parametrize(
    ("family", "why"),
    [("gpt2", "is no plain row of layers"), ("granite", "does more than its layers do")],
)
def test_a_model_that_is_more_than_its_layers_is_refused(family: str, why: str) -> None:
    with pytest.raises(ModelError, match=rf"cannot be dealt out to several cards: \w+ {why}.*set train.cards = 1"):
        dealt(family, 1, 3)
