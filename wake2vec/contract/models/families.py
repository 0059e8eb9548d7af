"""Which published models can be trained here, told from their config.json alone. Imports no torch.

FAMILIES are those that `bench/correctness/models.py` trained, P1 and P2, with exports that compute what was trained.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wake2vec.contract.models.model_shapes import HEADS, LAYERS, WIDTH

FAMILIES = (
    "apertus", "arcee", "biogpt", "bitnet", "bloom", "codegen", "cohere", "cohere2", "cwm", "diffllama", "doge",
    "ernie4_5", "ernie4_5_moe", "exaone4", "falcon", "flex_olmo", "gemma", "gemma2", "gemma3_text",
    "gemma3n_text", "glm", "glm4", "glm4_moe", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox",
    "gpt_neox_japanese", "gpt_oss", "gptj", "granite", "granite_swa", "granitemoe", "granitemoeshared",
    "helium", "hunyuan_v1_dense", "hunyuan_v1_moe", "hyperclovax", "internlm3", "iquestcoder", "jais2", "lfm2",
    "llama", "minicpm3", "minimax", "ministral", "ministral3", "mistral", "mixtral", "mpt", "nanochat",
    "nemotron", "olmo", "olmo2", "olmo3", "olmoe", "opt", "persimmon", "phi", "phi3", "phimoe", "qwen2",
    "qwen2_moe", "qwen3", "qwen3_5_text", "qwen3_moe", "qwen3_next", "recurrent_gemma", "seed_oss", "smollm3",
    "stablelm", "starcoder2", "vaultgemma", "xglm",
)  # fmt: skip
# whose decoder is more than embedding, layers and norm in a row; whatever else is, the trainer finds out
MORE_THAN_LAYERS = (
    "biogpt", "bloom", "codegen", "falcon", "gemma3n_text", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox",
    "gpt_neox_japanese", "gptj", "granite_swa", "lfm2", "mpt", "nanochat", "opt", "persimmon", "phi",
    "recurrent_gemma", "xglm",
)  # fmt: skip
# families that look positions up in a table of this length
TABLES = dict.fromkeys(("gpt2", "gpt_bigcode", "gptj", "codegen"), "n_positions")
TABLES |= dict.fromkeys(("opt", "gpt_neo", "biogpt"), "max_position_embeddings")
BNB4, BNB8 = "bitsandbytes 4-bit", "bitsandbytes 8-bit"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a model cannot be trained here, and what can be done."""

    problem: str
    remedy: str


def refusal(config: Mapping[str, Any], *, trust_remote_code: bool = False) -> Refusal | None:
    """None for a model that can be trained."""
    family = config.get("model_type")
    if trust_remote_code and config.get("auto_map"):
        return None
    if not isinstance(family, str) or not family:
        return Refusal(problem="its config.json names no model_type", remedy=_known())
    if found := _wrong_kind(config, family) or _wrong_numbers(config):
        return Refusal(problem=found, remedy=_known())
    if family not in FAMILIES:
        return Refusal(problem=f"{family} is not a family that trains here", remedy=_known())
    if not library_knows(family):
        problem = f"the installed transformers {version('transformers')} does not know {family}"
        return Refusal(problem=problem, remedy="pip install -U transformers")
    if (stored := stored_as(config)) not in ("", BNB4):
        remedy = "take the model as it was before that, or one that bitsandbytes stored in 4 bits"
        return Refusal(problem=f"its weights are stored as {stored}, which cannot be trained through", remedy=remedy)
    return None


def undealt(config: Mapping[str, Any], tensors: Iterable[str], *, trust_remote_code: bool = False) -> str:
    """Why the layers of a model cannot be dealt out to several cards; "" where they can, as far as its files tell."""
    if trust_remote_code and config.get("auto_map"):
        return ""
    family = config.get("model_type")
    if family in MORE_THAN_LAYERS or config.get("embedding_multiplier", 1) != 1:
        return f"{family} does more than its layers do"
    if any(re.search(r"\.experts\.\d+\.", name) for name in tensors):
        return "its files hold each expert by itself, and transformers puts them together on one card"
    return ""


def _wrong_kind(config: Mapping[str, Any], family: str) -> str:
    if config.get("is_encoder_decoder"):
        return f"{family} has an encoder and a decoder; only models that go on from a text can be trained"
    if any(key in config for key in ("vision_config", "audio_config")):
        return f"{family} also reads pictures or sound; only models of text alone can be trained"
    if config.get("use_bidirectional_attention") in (True, "all"):
        return f"this {family} reads a text in both directions: it would see the word that it is to predict"
    classes = config.get("architectures") or []
    named = [name for name in classes if isinstance(name, str)] if isinstance(classes, list) else []
    if named and not any(re.search(r"ForCausalLM$|LMHead(Model)?$|^GPTBigCode", name) for name in named):
        return f"{named[0]} does not go on from a text; only causal language models can be trained"
    return ""


def _wrong_numbers(config: Mapping[str, Any]) -> str:
    for key in (*LAYERS, *WIDTH, *HEADS, "vocab_size"):
        value = config.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            return f"its config.json says {key} = {value!r}, which is no number of anything"
    return ""


def stored_as(config: Mapping[str, Any]) -> str:
    """How the weights are quantised as published; "" when they are not."""
    table = config.get("quantization_config")
    if not isinstance(table, Mapping):
        return ""
    method = str(table.get("quant_method") or "").lower()
    if table.get("load_in_4bit") or table.get("_load_in_4bit"):
        return BNB4
    if table.get("load_in_8bit") or table.get("_load_in_8bit"):
        return BNB8
    return method or "quantised"


def longest(config: Mapping[str, Any]) -> int | None:
    """How many tokens a text can have at most, where positions are looked up in a table."""
    key = TABLES.get(str(config.get("model_type")))
    value = config.get(key) if key else None
    return value if isinstance(value, int) else None


def library_knows(family: str) -> bool:
    """Whether the installed transformers has a causal LM of the family, read without importing it."""
    spec = find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        return True  # `doctor` says what is not installed
    table = Path(spec.submodule_search_locations[0]) / "models" / "auto" / "modeling_auto.py"
    try:
        text = table.read_text("utf-8")
    except OSError:
        return True
    start = text.find("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES =")
    return start < 0 or f'("{family}",' in text[start : text.find("\n)", start)]


def _known() -> str:
    return f"these train: {', '.join(sorted(FAMILIES))}"
