"""What the files of a model hold decides its matrices and ties, as plain transformers decides; exports follow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from wake2vec.contract.errors import ModelError
from wake2vec.model.bare import read_config, read_outline
from wake2vec.model.load import load_base
from wake2vec.model.new_rows import is_tied, published_head
from wake2vec.model.published_files import Origin, PublishedFiles
from wake2vec.use.merged_weights import Trained, lay_out
from wake2vec.use.shards import write_model

BASE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 96, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
IDS = torch.arange(3, 40)[None]


def publish(folder: Path, family: str, **settings: Any) -> Path:
    config = type(AutoConfig.for_model(family))(**{**BASE, **settings})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


def change(folder: Path, settings: dict[str, Any] | None = None, **tensors: torch.Tensor | None) -> Path:
    """Other settings, or other tensors in the file: None takes one away."""
    config = json.loads((folder / "config.json").read_text()) | (settings or {})
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value != "gone"}))
    held = load_file(folder / "model.safetensors") | {name.replace("__", "."): one for name, one in tensors.items()}
    held = {name: one.contiguous() for name, one in held.items() if one is not None}
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@torch.no_grad()
def logits_of(model: Any) -> torch.Tensor:
    found: torch.Tensor = model.eval()(input_ids=IDS, use_cache=False).logits[0]
    return found


def published(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def own_head(folder: Path) -> Path:
    return change(publish(folder, "qwen2", tie_word_embeddings=False), {"tie_word_embeddings": True})


def equal_head(folder: Path) -> Path:
    publish(folder, "qwen2", tie_word_embeddings=True)
    same = load_file(folder / "model.safetensors")["model.embed_tokens.weight"].clone()
    return change(folder, lm_head__weight=same)


def only_a_head(folder: Path) -> Path:
    publish(folder, "qwen2", tie_word_embeddings=True)
    one = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    return change(folder, lm_head__weight=one, model__embed_tokens__weight=None)


def without_prefix(folder: Path) -> Path:
    publish(folder, "gpt2", n_embd=32, n_layer=2, n_head=4, n_positions=64)
    held = load_file(folder / "model.safetensors")
    short = {name.removeprefix("transformer."): one for name, one in held.items()}
    save_file(short, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def old_name_of_the_head(folder: Path) -> Path:
    return publish(folder, "gpt_neox", tie_word_embeddings=False)


def default_of_the_family(folder: Path) -> Path:
    return change(publish(folder, "gemma"), {"tie_word_embeddings": "gone"})


def one_tensor_too_many(folder: Path) -> Path:
    return change(publish(folder, "qwen2", tie_word_embeddings=False), model__layers__0__masked_bias=torch.ones(1))


KINDS = {
    own_head: False, equal_head: True, only_a_head: True, without_prefix: True, old_name_of_the_head: False,
    default_of_the_family: True, one_tensor_too_many: False,
}  # fmt: skip


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_a_model_is_what_plain_transformers_makes_of_its_files(tmp_path: Path, make: Any) -> None:
    folder = make(tmp_path / "model")

    model, _ = load_base(str(folder), device="cpu")

    torch.testing.assert_close(logits_of(model), logits_of(published(folder)), rtol=1e-5, atol=1e-5)
    assert is_tied(model) is KINDS[make]


@pytest.mark.parametrize("separate", [False, True], ids=["one set of rows", "two sets of rows"])
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_an_export_holds_each_matrix_with_the_rows_of_its_side(tmp_path: Path, make: Any, separate: bool) -> None:
    folder = make(tmp_path / "model")
    files = PublishedFiles(Origin(path=str(folder)))
    outline = read_outline(files, read_config(files.origin))
    rows, other = torch.full((2, 32), 0.25), torch.full((2, 32), -0.5)
    two = separate or not KINDS[make]
    trained = Trained(first_new_id=90, input_rows=rows, output_rows=other if two else None)

    layout = lay_out(files, trained, outline=outline, merge=False, dtype=None)
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    write_model(out, layout.pieces)
    change(out, {"vocab_size": 92, "tie_word_embeddings": layout.tied})

    reference = published(folder)
    model, info = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    for part, new in (("input", rows), ("output", other if two else rows)):
        want = getattr(reference, f"get_{part}_embeddings")().weight[:90]
        have = getattr(model, f"get_{part}_embeddings")().weight
        assert torch.equal(have, torch.cat([want, new]))
    assert is_tied(model) is not two


def test_a_head_that_no_file_holds_is_refused_rather_than_made_up(tmp_path: Path) -> None:
    folder = change(publish(tmp_path / "model", "qwen2", tie_word_embeddings=True), {"tie_word_embeddings": False})

    with pytest.raises(ModelError, match=r"no lm_head\.weight"):
        load_base(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("granite", {"logits_scaling": 4.0, "embedding_multiplier": 3.0}),
        ("cohere", {"logit_scale": 0.25}),
        ("gemma2", {"final_logit_softcapping": 2.0, "sliding_window": 16}),
        ("phi", {"tie_word_embeddings": False}),
        ("gemma", {}),
        ("nanochat", {}),
    ],
)
def test_the_head_that_training_reads_gives_the_logits_of_the_model(
    tmp_path: Path, family: str, settings: dict[str, Any]
) -> None:
    model, _ = load_base(str(publish(tmp_path / "model", family, **settings)), device="cpu")
    head = published_head(model, 96)

    with torch.no_grad():
        hidden = model.get_decoder()(input_ids=IDS, use_cache=False).last_hidden_state[0]
        found = head.factor * head(hidden)
    found = found if head.softcap is None else head.softcap * torch.tanh(found / head.softcap)

    torch.testing.assert_close(found, logits_of(model), rtol=1e-5, atol=1e-5)
