"""A handful of families, each of a kind: P1, P2, three exports. More: bench/correctness/models.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from bench.correctness.exported import TINY, Seen, check
from tests.machine import Machine, quick_machine, short_text
from wake2vec.contract.rundir import RunDir
from wake2vec.use.export import export

BASE: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 2048, "max_position_embeddings": 256,
    "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gemma2": {"sliding_window": 16, "query_pre_attn_scalar": 16, "final_logit_softcapping": 3.0},
    "smollm3": {"tie_word_embeddings": True, "no_rope_layers": [1, 0]},
    "phi": {},  # a bias on its head
    "granite": {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.3},
}


def publish(folder: Path, family: str, **settings: Any) -> Path:
    config = type(AutoConfig.for_model(family))(**{**BASE, **settings})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    return with_tokenizer(folder)


def with_tokenizer(folder: Path) -> Path:
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / "model" / file, folder / file)
    return folder


def tied_flag_own_head(folder: Path) -> Path:
    publish(folder, "qwen2", tie_word_embeddings=False)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    return folder


def four_bits(folder: Path) -> Path:
    source = publish(folder.with_name("source"), "qwen2", tie_word_embeddings=False)
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    AutoModelForCausalLM.from_pretrained(source, quantization_config=settings, dtype=torch.float32).save_pretrained(
        folder
    )
    return with_tokenizer(folder)


# PEFT asks transformers for a property under its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def quick_check(model: Path, work: Path, **settings: Any) -> Seen:
    """Commands and trainers are forks."""
    machine = machine_of(work)
    work.mkdir()
    return check(
        model, work, settings=machine.settings_file, run=lambda _, *words: machine.done(*words), samples=0,
        corpus=Path(short_text(work)["data__corpus"]), **settings,
    )  # fmt: skip


def machine_of(work: Path) -> Machine:
    return quick_machine(home=work / "home", store=work / "store")


def export_here(work: Path, job: str, to: Path, merge: bool) -> str:
    """In this process; without it by a command."""
    export(RunDir(root=work / "home" / "runs" / job), to, merge=merge, dtype="fp32")
    return ""


@pytest.mark.parametrize(
    "family", [one if one == "granite" else pytest.param(one, marks=pytest.mark.sweep) for one in KINDS]
)
def test_a_family_trains_and_its_exports_compute_what_was_trained(tmp_path: Path, family: str) -> None:
    seen = quick_check(
        publish(tmp_path / "model", family, **KINDS[family]), tmp_path / "work", layers="lean", export=export_here
    )

    assert seen.export_checked, seen.why
    if family == "granite":  # Llama's names, another function
        require_told(tmp_path / "work", "layer 0, GraniteDecoderLayer: its function is another one, by ")


def require_told(work: Path, said: str) -> None:
    """Which layer differs, and by how much, is in the log, on the screen and in the report."""
    run = work / "home" / "runs" / "p1"
    assert said in (run / "trainer.log").read_text()
    for words in (["log", "p1"], ["status", "--once"], ["status", "--json"], ["report", "p1"]):
        done = machine_of(work).done(*words)
        assert said in " ".join(done.stdout.replace("\\n", " ").split()) or words[0] == "report", words
    assert said in (run / "report.html").read_text()


@pytest.mark.parametrize("make", [tied_flag_own_head, four_bits], ids=lambda make: make.__name__)
def test_a_model_as_people_have_it_trains_and_exports(tmp_path: Path, make: Any) -> None:
    seen = quick_check(make(tmp_path / "model"), tmp_path / "work", layers="autograd", export=export_here)

    assert seen.export_checked, seen.why


def test_a_smoke_test_on_a_cpu_may_hold_its_layers_in_four_bits(tmp_path: Path) -> None:
    """GPT-2 keeps its weights on their side: in 4 bits they are turned, in an export they are as published."""
    seen = quick_check(publish(tmp_path / "model", "gpt2", **KINDS["gpt2"]), tmp_path / "work", load="nf4")

    assert seen.export_checked, seen.why
