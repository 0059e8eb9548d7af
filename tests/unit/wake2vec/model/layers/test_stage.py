"""Some layers of a model on one card, the others as places without weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.families import FAMILIES, build
from wake2vec.contract.errors import ModelError
from wake2vec.contract.models.families import FAMILIES as TRAINED
from wake2vec.contract.models.families import MORE_THAN_LAYERS
from wake2vec.model.layers.paths import decoder_layers
from wake2vec.model.layers.stage import Passage, Stage

IDS = torch.arange(12).unsqueeze(0)
# other names for norm and layers, something beside the embedding or behind it, inputs of every layer
REFUSED = {*MORE_THAN_LAYERS, "granite"}  # the last for a number in its config


def whole(family: str) -> Any:
    torch.manual_seed(1)
    return build(FAMILIES[family]).float().eval()


def dealt(family: str, *layers: int) -> list[Any]:
    """The model once for each card, the first of which asks the others in turn."""
    models, caches = [whole(family) for _ in layers], dict[int, Any]()

    def beyond(hidden: Tensor, passage: Passage) -> Tensor:
        for model, stage in zip(models[1:], stages[1:], strict=True):
            stage.arrived, ids = hidden, torch.zeros(hidden.shape[:2], dtype=torch.int64)
            cache = caches.get(stage.rank) if passage.past else None
            found = model.get_decoder()(input_ids=ids, past_key_values=cache, use_cache=passage.past is not None)
            hidden, caches[stage.rank] = found.last_hidden_state, found.past_key_values
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


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_dealt_out_every_family_computes_what_it_did_or_is_refused(family: str) -> None:
    right = whole(family)(input_ids=IDS, use_cache=False).logits
    count = len(getattr(whole(family).get_decoder(), "layers", [])) or 4
    try:
        first, *others = dealt(family, 1, count - 2, 1)
    except ModelError:
        assert family in REFUSED or family not in TRAINED
        return

    assert family not in REFUSED
    assert torch.equal(first(input_ids=IDS, use_cache=False).logits, right)
    assert [len(decoder_layers(model)) for model in (first, *others)] == [1, count - 2, 1]


@pytest.mark.parametrize("family", ["llama", "gemma2", "minimax", "qwen3_next"])  # whole, sliding, made late, linear
def test_texts_are_written_through_all_cards(family: str) -> None:
    ids, length = torch.arange(3, 23).unsqueeze(0), {"max_new_tokens": 20, "min_new_tokens": 20, "do_sample": False}
    first, *_ = dealt(family, 1, 3)

    assert torch.equal(first.generate(ids, **length), whole(family).generate(ids, **length))


@pytest.mark.parametrize(
    ("family", "why"),
    [("gpt2", "is no plain row of layers"), ("granite", "does more than its layers do")],
)
def test_a_model_that_is_more_than_its_layers_is_refused(family: str, why: str) -> None:
    with pytest.raises(ModelError, match=rf"cannot be dealt out to several cards: \w+ {why}.*set train.cards = 1"):
        dealt(family, 1, 3)
