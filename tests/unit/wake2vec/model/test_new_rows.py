"""Split rows against the full matrix, and the promise that the base model is untouched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from wake2vec.contract.errors import ModelError
from wake2vec.model.loss import blocked_cross_entropy
from wake2vec.model.new_rows import InstalledRows, install_rows, is_tied, resolve_mode

BASE, PADDED, NEW, WIDTH = 90, 96, 40, 32
SHAPE: dict[str, Any] = {
    "vocab_size": PADDED,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def tiny(*, tied: bool, family: str = "qwen2", dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(3)
    config, model = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}[family]
    return model(config(**SHAPE, tie_word_embeddings=tied)).to(dtype).requires_grad_(False)


def split(model: Any, mode: str) -> InstalledRows:
    rows = torch.randn(2, NEW, WIDTH, generator=torch.Generator().manual_seed(5)) * 0.1
    installed = install_rows(model, first_new_id=BASE, mode=mode, input_rows=rows[0], output_rows=rows[1])
    for parameter in installed.everything().values():
        parameter.data = parameter.data.double()
    return installed


def full_matrices(model: Any, installed: InstalledRows) -> tuple[torch.Tensor, torch.Tensor]:
    """The same model with one plain matrix a side, of which all rows have gradients."""

    def join(base: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return torch.cat([base[:BASE].detach(), rows.detach()]).requires_grad_()

    embedding = join(installed.embedding.base.weight, installed.embedding.rows)
    if installed.mode == "shared" and installed.was_tied:
        return embedding, embedding
    return embedding, join(installed.head.base.weight, installed.head.rows)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, BASE + NEW, (3, 17), generator=torch.Generator().manual_seed(9))
    return ids[:, :-1], ids[:, 1:]


def split_loss(model: Any, installed: InstalledRows, inputs: torch.Tensor, targets: torch.Tensor, scale: float) -> None:
    hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state
    blocked_cross_entropy(hidden.flatten(0, 1), installed.head, targets.flatten(), scale=scale).scaled.backward()


def full_gradients(model: Any, installed: InstalledRows) -> tuple[torch.Tensor, torch.Tensor]:
    embedding, head = full_matrices(model, installed)
    inputs, targets = batch()
    hidden = model.model(inputs_embeds=F.embedding(inputs, embedding), use_cache=False).last_hidden_state
    F.cross_entropy((hidden @ head.T).flatten(0, 1), targets.flatten()).backward()
    assert embedding.grad is not None
    assert head.grad is not None
    return embedding.grad, head.grad


@pytest.mark.parametrize(
    ("tied", "mode"), [(True, "shared"), (False, "separate"), (False, "input"), (True, "separate")]
)
def test_the_gradient_of_the_slice_is_that_of_the_full_matrix_under_a_mask(tied: bool, mode: str) -> None:
    model = tiny(tied=tied)
    installed = split(model, mode)
    inputs, targets = batch()

    split_loss(model, installed, inputs, targets, 1 / targets.numel())

    expected_in, expected_out = full_gradients(model, installed)
    assert_close(installed.embedding.rows.grad, expected_in[BASE:])
    if mode == "separate":
        assert_close(installed.head.rows.grad, expected_out[BASE:])
    if mode == "input":
        assert installed.head.rows.grad is None


def test_one_shared_parameter_on_an_untied_model_sums_both_sides() -> None:
    model = tiny(tied=False)
    installed = split(model, "shared")
    inputs, targets = batch()

    split_loss(model, installed, inputs, targets, 1 / targets.numel())

    expected_in, expected_out = full_gradients(model, installed)
    assert_close(installed.embedding.rows.grad, (expected_in + expected_out)[BASE:])


@pytest.mark.parametrize("parts", [1, 3])
def test_gradients_do_not_depend_on_the_micro_batch(parts: int) -> None:
    model = tiny(tied=True)
    whole, cut = split(model, "shared"), None
    inputs, targets = batch()
    split_loss(model, whole, inputs, targets, 1 / targets.numel())

    other = tiny(tied=True)
    cut = split(other, "shared")
    for some_inputs, some_targets in zip(inputs.chunk(parts), targets.chunk(parts), strict=True):
        split_loss(other, cut, some_inputs, some_targets, 1 / targets.numel())

    assert_close(cut.embedding.rows.grad, whole.embedding.rows.grad)


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_of_base_tokens_are_bit_equal_to_the_published_model(
    tied: bool, family: str, dtype: torch.dtype
) -> None:
    inputs = torch.randint(0, BASE, (2, 12), generator=torch.Generator().manual_seed(1))
    published = tiny(tied=tied, family=family, dtype=dtype)
    expected = published(input_ids=inputs).logits[..., :BASE]
    model = tiny(tied=tied, family=family, dtype=dtype)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    installed = install_rows(model, first_new_id=BASE, mode="separate", input_rows=torch.ones(NEW, WIDTH))

    assert torch.equal(model(input_ids=inputs).logits[..., :BASE], expected)
    assert torch.equal(installed.embedding.base.weight, weights["model.embed_tokens.weight"])
    assert torch.equal(installed.head.base.weight, weights["lm_head.weight"])


def test_rows_of_the_padding_gap_are_new_tokens_and_not_what_the_matrix_held() -> None:
    model = tiny(tied=False, dtype=torch.float32)
    rows = torch.randn(NEW, WIDTH)
    installed = install_rows(model, first_new_id=BASE, mode="separate", input_rows=rows)

    looked_up = installed.embedding(torch.tensor([[BASE, BASE + NEW - 1]]))

    assert torch.equal(looked_up[0], rows[[0, -1]])
    assert model(input_ids=torch.tensor([[1, 2]])).logits.shape[-1] == BASE + NEW


def test_generation_works_over_both_parts() -> None:
    model = tiny(tied=True, dtype=torch.float32)
    install_rows(model, first_new_id=BASE, mode="shared", input_rows=torch.randn(NEW, WIDTH) * 3)

    text = model.generate(torch.tensor([[1, BASE + 2]]), max_new_tokens=8, do_sample=False, pad_token_id=0)

    assert text.shape == (1, 10)
    assert int(text.max()) < BASE + NEW


def test_a_trainable_base_gets_its_gradient_too() -> None:
    model = tiny(tied=True)
    model.get_input_embeddings().weight.requires_grad_()
    installed = split(model, "shared")
    inputs, targets = batch()

    split_loss(model, installed, inputs, targets, 1 / targets.numel())

    expected, _ = full_gradients(model, installed)
    assert_close(installed.embedding.base.weight.grad[:BASE], expected[:BASE])


def test_auto_follows_the_tying_of_the_loaded_model() -> None:
    assert resolve_mode("auto", tied=is_tied(tiny(tied=True))) == "shared"
    assert resolve_mode("auto", tied=is_tied(tiny(tied=False))) == "separate"
    assert resolve_mode("input", tied=True) == "input"


def test_a_model_without_a_known_head_is_refused_with_its_module_tree() -> None:
    model = tiny(tied=False)
    model.lm_head = torch.nn.Identity()

    with pytest.raises(ModelError, match=r"no output embedding matrix.*lm_head: Identity"):
        install_rows(model, first_new_id=BASE, mode="shared", input_rows=torch.zeros(NEW, WIDTH))


def test_new_ids_past_the_end_of_the_matrix_are_refused() -> None:
    with pytest.raises(ModelError, match="has 96 rows, but new ids start at 97"):
        install_rows(tiny(tied=False), first_new_id=97, mode="shared", input_rows=torch.zeros(NEW, WIDTH))


def test_rows_of_the_wrong_width_are_refused() -> None:
    with pytest.raises(ModelError, match=r"expected \[n_new, 32\]"):
        install_rows(tiny(tied=False), first_new_id=BASE, mode="shared", input_rows=torch.zeros(NEW, 31))


def assert_close(actual: torch.Tensor | None, expected: torch.Tensor | None) -> None:
    assert actual is not None
    assert expected is not None
    assert expected.norm() > 0
    assert (actual - expected).norm() / expected.norm() < 1e-12
