"""The families that llama.cpp computes as transformers does: their figures, and their tensors under its names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gguf
import numpy.typing as npt
import torch

from wake2vec.contract.errors import ModelError

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Family:
    """`halves_turned`: rotary pairs lie beside each other in llama.cpp, in two halves in transformers."""

    arch: gguf.MODEL_ARCH
    halves_turned: bool = False
    rope_tensor: bool = False  # whether its graph reads factors of its own for each rotary pair


_LLAMA = Family(arch=gguf.MODEL_ARCH.LLAMA, halves_turned=True, rope_tensor=True)
FAMILIES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": Family(arch=gguf.MODEL_ARCH.QWEN2),
    "qwen3": Family(arch=gguf.MODEL_ARCH.QWEN3),
}


def family_of(config: Any) -> Family:
    """Raises ModelError for what llama.cpp would compute otherwise, or not at all."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise _not(config, f"models of the family {config.model_type}", f"those that can be: {', '.join(FAMILIES)}")
    kind = _rope(config)["rope_type"]
    if kind not in ("default", "linear", "llama3") or (kind != "default" and not family.rope_tensor):
        raise _not(config, f"rotary positions of the kind {kind} in {config.model_type}")
    if _rope(config).get("partial_rotary_factor", 1.0) != 1.0:
        raise _not(config, f"rotary positions of a part of each head in {config.model_type}")
    if config.hidden_act != "silu":
        raise _not(config, f"the activation {config.hidden_act} in {config.model_type}")
    return family


def add_figures(writer: gguf.GGUFWriter, config: Any, vocabulary: int) -> None:
    heads, width = config.num_attention_heads, _head_width(config)
    writer.add_vocab_size(vocabulary)
    writer.add_context_length(_context(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads or heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(_rope(config)["rope_theta"])


def rope_factors(config: Any) -> Array | None:
    """By what each rotary frequency is divided [width / 2]; None: all are as the base says."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    kind, width = _rope(config)["rope_type"], _head_width(config)
    if kind == "default":
        return None
    turned, _ = ROPE_INIT_FUNCTIONS[kind](config, device="cpu")
    plain = 1 / _rope(config)["rope_theta"] ** (torch.arange(0, width, 2).float() / width)
    return (plain / turned).numpy()


def name_in_gguf(names: gguf.TensorNameMap, published: str) -> str:
    """Raises ModelError for a tensor that llama.cpp does not know."""
    found = names.get_name(published, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise ModelError(published, "llama.cpp knows no such tensor", "export it without --gguf")
    return found


def turned(family: Family, config: Any, published: str, rows: Array) -> Array:
    """Rows of the query and key matrices in the order of llama.cpp. [out, …]"""
    is_key = ".k_proj." in published
    if not family.halves_turned or not (is_key or ".q_proj." in published):
        return rows
    heads = (is_key and config.num_key_value_heads) or config.num_attention_heads
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _rope(config: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10_000.0} | (getattr(config, "rope_parameters", None) or {})


def _head_width(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _context(config: Any) -> int:
    """Only so far as every layer sees everything: these graphs know no window."""
    window = getattr(config, "sliding_window", None)
    return int(min(config.max_position_embeddings, window or config.max_position_embeddings))


def _not(config: Any, what: str, more: str = "") -> ModelError:
    problem = f"cannot be written as GGUF: {what}" + (f" ({more})" if more else "")
    return ModelError(getattr(config, "_name_or_path", "") or config.model_type, problem, "export it without --gguf")
