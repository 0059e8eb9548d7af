"""The proof of a layer path: right ones hold in every precision, wrong ones fail and are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor

from tests.families import FAMILIES, VARIATIONS, build
from wake2vec.contract.plan import WRITTEN_OUT, LayerPath
from wake2vec.model.dropout import StepKey, key_dropouts
from wake2vec.model.layers import frozen_linear as frozen
from wake2vec.model.layers import paths as layers
from wake2vec.model.layers.attention import register_attention
from wake2vec.model.layers.decoder import Decoder
from wake2vec.model.layers.paths import use_layers
from wake2vec.model.layers.proof import TOKENS, Proof, prove, refer

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
IDS = torch.randint(3, 96, (1, TOKENS), generator=torch.Generator().manual_seed(4))


def tiny(name: str = "llama", dtype: torch.dtype = torch.float32, **more: Any) -> Any:
    family = FAMILIES.get(name) or VARIATIONS[name]
    return build(family, attention=register_attention(), dtype=dtype, **more).requires_grad_(False).train()


def adapted(dtype: torch.dtype = torch.float32, dropout: float = 0.3) -> Any:
    model, context = tiny(dtype=dtype), StepKey()
    settings = LoraConfig(r=4, lora_dropout=dropout, target_modules=["q_proj", "down_proj"])
    inject_adapter_in_model(settings, model)
    key_dropouts(model, context, seed=1)
    context.set(step=0, sample_ids=torch.zeros(1, dtype=torch.int64))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return model


def proof_of(model: Any, dtype: torch.dtype = torch.float32, path: LayerPath = "lean") -> Proof:
    return prove(model, path, refer(model, IDS, dtype))


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let layer 2 be read wrongly, and keep the twin from seeing it."""

    def make(**changes: Any) -> None:
        def read(layer: Any) -> Decoder:
            decoder = original(layer)
            at_two = layer.self_attn.layer_idx == 2
            return replace(decoder, **changes) if at_two else decoder

        original = layers.read_decoder
        monkeypatch.setattr(layers, "read_decoder", read)
        monkeypatch.setattr(layers, "check_twins", lambda *_: None)

    return make


@pytest.mark.parametrize("path", [*WRITTEN_OUT, "recompute"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["llama", "phi3", "mistral, window", "smollm3"])
def test_a_right_path_holds(name: str, dtype: torch.dtype, path: LayerPath) -> None:
    assert proof_of(tiny(name, dtype), dtype, path).holds


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_right_path_holds_at_any_depth(dtype: torch.dtype) -> None:
    assert proof_of(tiny("qwen2", dtype, num_hidden_layers=32), dtype).holds


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("path", WRITTEN_OUT)
def test_a_layer_that_does_not_rotate_is_named(wrong: Any, dtype: torch.dtype, path: LayerPath) -> None:
    wrong(rotates=False)

    proof = proof_of(tiny(dtype=dtype), dtype, path)

    assert not proof.holds
    assert proof.place == "the output of layer 2"
    assert f"{path}: the output of layer 2 is " in str(proof)


def test_in_fp32_a_hundredth_of_a_percent_is_seen(wrong: Any) -> None:
    wrong(scaling=8**-0.5 * 1.0001)

    assert proof_of(tiny()).place == "the output of layer 2"


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_wrong_gradient_is_named(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    original, model = Decoder.backward, tiny(dtype=dtype)
    use_layers(model, "lean")
    second = model.model.layers[2].forward.way.decoder.out.weight().data_ptr()

    def backward(self: Decoder, grad: Tensor, *rest: Any) -> Tensor:
        found = original(self, grad, *rest)
        return found * 1.5 if self.out.weight().data_ptr() == second else found

    monkeypatch.setattr(Decoder, "backward", backward)

    assert proof_of(model, dtype).place == "the gradient of the input of layer 2"


@pytest.mark.parametrize("dtype", DTYPES)
def test_adapters_are_proved_with_their_dropout(dtype: torch.dtype) -> None:
    assert all(proof_of(adapted(dtype), dtype, path).holds for path in WRITTEN_OUT)


def test_wrong_gradients_of_adapters_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    original = frozen.Gradients.add
    monkeypatch.setattr(
        frozen.Gradients, "add", lambda self, parameter, gradient: original(self, parameter, gradient * 1.01)
    )

    assert proof_of(adapted()).place == "the gradient of the adapters"


def test_an_adapter_that_does_nothing_yet_is_proved_as_if_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(dropout=0.0)
    monkeypatch.setattr(frozen.Adapter, "strength", lambda self, mask: 2 * self.scaling)

    assert proof_of(model).place == "the output of layer 0"


def test_a_proof_changes_no_weight_and_leaves_no_gradient() -> None:
    model = adapted()
    before, state = {name: x.clone() for name, x in model.state_dict().items()}, torch.get_rng_state()

    proof_of(model)

    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.modules())


def test_gradients_beyond_fp16_are_proved_at_a_smaller_scale() -> None:
    model = tiny(dtype=torch.float16)
    with torch.no_grad():
        model.model.norm.weight.mul_(10_000)

    right = refer(model, IDS, torch.float16)

    assert right.shrink < 1
    assert prove(model, "lean", right).holds


def test_what_is_no_number_proves_nothing(wrong: Any) -> None:
    wrong(scaling=float("nan"))

    assert not proof_of(tiny()).holds
