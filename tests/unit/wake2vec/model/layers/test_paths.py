"""The written-out layers against plain autograd: values, gradients of rows and adapters, and the ways back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from wake2vec.contract.plan import LayerPath
from wake2vec.model.dropout import StepKey, key_dropouts
from wake2vec.model.layers.attention import register_attention
from wake2vec.model.layers.host_checkpoints import HostCheckpoints
from wake2vec.model.layers.paths import LayersInUse, decoder_layers, use_layers
from wake2vec.model.load import load_base

# PEFT 0.21 still reads the old name of a property of transformers 5.23
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

FAMILIES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "phi3": (Phi3Config, Phi3ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "gemma": (GemmaConfig, GemmaForCausalLM),
}
TARGETS = {"phi3": ["qkv_proj", "gate_up_proj", "down_proj"]}
PLAIN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WRITTEN_OUT: list[LayerPath] = ["lean", "checkpoint", "offload"]


def tiny(family: str, **more: Any) -> Any:
    torch.manual_seed(6)
    config, model = FAMILIES[family]
    settings: dict[str, Any] = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 64,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    built = model(config(**{**settings, **more}, attn_implementation=register_attention())).double()
    for name, parameter in built.named_parameters():
        if "bias" in name or "norm" in name:  # zeros and ones would hide a mistake
            torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.3)
        if "proj.weight" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    for module in built.modules():
        if hasattr(module, "variance_epsilon"):
            module.forward = Fp64Norm(module)
    return built.requires_grad_(False).train()


class Fp64Norm:
    """The library's norm without its casts to fp32, so that a comparison in fp64 is one."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> Tensor:
        return self.module.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.module.variance_epsilon)


def adapt(model: Any, family: str, dropout: float) -> tuple[Any, StepKey]:
    torch.manual_seed(8)
    settings = LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules=TARGETS.get(family, PLAIN))
    adapted = get_peft_model(model, settings, autocast_adapter_dtype=False)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)  # B starts at zero, which would hide a mistake
    context = StepKey()
    key_dropouts(adapted, context, seed=1)
    context.set(step=3, sample_ids=torch.tensor([11, 12, 13]))
    return adapted, context


def run(model: Any) -> tuple[Tensor, Tensor]:
    """The decoder's output and the gradient of its input."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    x = torch.randn(3, 12, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    out = base.get_decoder()(inputs_embeds=x, use_cache=False).last_hidden_state
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (out * weight).sum().backward()
    assert x.grad is not None
    return out.detach(), x.grad


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral", "phi3"])
@pytest.mark.parametrize("path", WRITTEN_OUT)
def test_a_written_out_layer_computes_what_autograd_computes(family: str, path: LayerPath) -> None:
    model = tiny(family)
    expected, expected_gradient = run(model)

    assert use_layers(model, path) == LayersInUse(path=path)

    found, gradient = run(model)
    assert_close(found, expected)
    assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3"])
@pytest.mark.parametrize("path", WRITTEN_OUT)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_adapters_get_the_gradients_of_autograd(family: str, path: LayerPath, dropout: float) -> None:
    model, _ = adapt(tiny(family), family, dropout)
    adapters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    expected, expected_gradient = run(model)
    theirs = {name: parameter.grad for name, parameter in adapters.items()}
    for parameter in adapters.values():
        parameter.grad = None

    assert use_layers(model, path) == LayersInUse(path=path)
    found, gradient = run(model)

    assert_close(found, expected)
    assert_close(gradient, expected_gradient)
    assert len(adapters) == 3 * 2 * len(TARGETS.get(family, PLAIN))
    for name, parameter in adapters.items():
        assert_close(parameter.grad, theirs[name])


def test_the_ways_that_recompute_give_the_bits_of_the_one_that_keeps() -> None:
    found = []
    for path in WRITTEN_OUT:
        model, _ = adapt(tiny("qwen2"), "qwen2", 0.3)
        use_layers(model, path)
        out, gradient = run(model)
        adapters = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
        found.append([out, gradient, *adapters])

    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_an_oom_split_changes_no_gradient_of_an_adapter() -> None:
    x = torch.randn(4, 12, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = []
    for size in (4, 2, 1):
        model, context = adapt(tiny("llama"), "llama", 0.3)
        use_layers(model, "lean" if size > 1 else "checkpoint")
        for start in range(0, 4, size):
            context.set(step=3, sample_ids=torch.arange(start, start + size))
            out = model.get_base_model().get_decoder()(inputs_embeds=x[start : start + size], use_cache=False)
            out.last_hidden_state.square().sum().backward()
        found.append([parameter.grad for parameter in model.parameters() if parameter.requires_grad])

    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert_close(two, one)


def test_nf4_layers_take_the_written_out_way_too(tmp_path: Path) -> None:
    tiny("llama", hidden_size=64, intermediate_size=128).float().save_pretrained(tmp_path)
    model, _ = load_base(str(tmp_path), load="nf4", device="cpu")
    x = torch.randn(2, 8, 64)

    def gradient() -> Tensor:
        leaf = x.clone().requires_grad_()
        model.model(inputs_embeds=leaf, use_cache=False).last_hidden_state.square().sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    expected = gradient()
    assert use_layers(model, "lean").path == "lean"

    assert (gradient() - expected).norm() / expected.norm() < 1e-5


def test_another_way_can_be_chosen_later_and_autograd_is_the_librarys_own() -> None:
    model = tiny("llama")
    expected, expected_gradient = run(model)

    for path in (*WRITTEN_OUT, "autograd"):
        use_layers(model, path)  # type: ignore[arg-type]

    assert not any("forward" in layer.__dict__ for layer in decoder_layers(model))
    assert torch.equal(run(model)[0], expected)
    assert torch.equal(run(model)[1], expected_gradient)


def test_evaluation_and_generation_use_the_librarys_layers() -> None:
    model = tiny("llama").float()
    ids = torch.randint(0, 64, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        text = model.generate(ids, max_new_tokens=5, do_sample=False)

    use_layers(model, "lean")

    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, expected)
        assert torch.equal(model.generate(ids, max_new_tokens=5, do_sample=False), text)


def test_padding_is_not_looked_at() -> None:
    model = tiny("llama")
    x = torch.randn(2, 9, 32, dtype=torch.float64)
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[0, :4] = 0
    expected = model.model(inputs_embeds=x, attention_mask=mask).last_hidden_state

    use_layers(model, "lean")

    found = model.model(inputs_embeds=x, attention_mask=mask).last_hidden_state
    assert_close(found[mask > 0], expected[mask > 0])


def test_an_unknown_layer_is_recomputed_by_pytorch_and_says_so() -> None:
    model = tiny("gemma")
    expected = run(model)[1]

    used = use_layers(model, "lean")

    assert used.path == "recompute"
    assert "GemmaRMSNorm" in used.note
    assert_close(run(model)[1], expected)


def test_a_model_whose_weights_train_is_recomputed_by_pytorch() -> None:
    model = tiny("llama").requires_grad_(True)

    assert "weight trains" in use_layers(model, "lean").note
    assert use_layers(model, "autograd").path == "autograd"


@pytest.mark.parametrize("path", WRITTEN_OUT)
def test_a_written_out_layer_sees_no_further_than_its_window(path: LayerPath) -> None:
    model, wide = tiny("mistral", sliding_window=8), tiny("mistral", sliding_window=None)
    expected, expected_gradient = run(model)

    assert use_layers(model, path) == LayersInUse(path=path)

    assert_close(run(model)[0], expected)
    assert_close(run(model)[1], expected_gradient)
    assert not torch.allclose(run(wide)[0], expected)


def test_plain_dropout_in_an_adapter_is_not_taken_for_keyed_dropout() -> None:
    settings = LoraConfig(r=4, lora_dropout=0.1, target_modules=PLAIN)
    model = get_peft_model(tiny("llama"), settings, autocast_adapter_dtype=False)

    assert "key_dropouts" in use_layers(model, "lean").note


def test_a_slot_holds_what_was_stored_last() -> None:
    host = HostCheckpoints(2)
    for value in (1.0, 2.0):
        for index in (0, 1):
            host.store(index, torch.full((2, 3), value + index))
    host.store(0, torch.full((1, 3), 7.0))  # a shorter batch, after a backward pass that never came

    assert torch.equal(host.fetch(1), torch.full((2, 3), 3.0))
    assert torch.equal(host.fetch(0), torch.full((1, 3), 7.0))


def assert_close(actual: Tensor | None, expected: Tensor | None) -> None:
    assert actual is not None
    assert expected is not None
    assert expected.norm() > 0
    assert (actual - expected).norm() / expected.norm() < 1e-12
