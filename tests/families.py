"""Tiny models of every family of causal LMs that the installed transformers builds: one list for tests and bench.

`FAMILIES` has one entry a family, `VARIATIONS` the same families with what a config can change: longer texts than the
window, layers without rotation, other rotations, biases, multipliers, activations. Random weights, no download.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

BASE: Mapping[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 96, "max_position_embeddings": 256,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
          "num_key_value_heads": 4}  # fmt: skip
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_shared_experts": 1}
GROUPED = {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 10000.0}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64, "rope_theta": 10000.0,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One kind of model: its `model_type`, and what its config has beyond `BASE` (None takes a key away)."""

    name: str
    model_type: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def _family(model_type: str, **settings: Any) -> Family:
    return Family(model_type, model_type, settings)


FAMILIES: dict[str, Family] = {
    one.name: one
    for one in (
        _family("llama"), _family("qwen2"), _family("mistral"), _family("phi3"),
        _family("qwen3"), _family("ministral", sliding_window=16), _family("ministral3"), _family("cwm"),
        _family("smollm3"), _family("olmo"), _family("olmo2"), _family("olmo3", sliding_window=16),
        _family("granite", residual_multiplier=0.22, attention_multiplier=0.2, embedding_multiplier=3.0,
                logits_scaling=4.0),
        _family("granite_swa", residual_multiplier=0.5),
        _family("gemma"), _family("gemma2", sliding_window=16, query_pre_attn_scalar=8),
        _family("gemma3_text", sliding_window=16, query_pre_attn_scalar=8), _family("vaultgemma", sliding_window=16),
        _family("gemma3n_text", sliding_window=16, vocab_size_per_layer_input=96, hidden_size_per_layer_input=8,
                num_kv_shared_layers=0, laurel_rank=8, activation_sparsity_pattern=[0.0] * 4,
                intermediate_size=[48] * 4, layer_types=["sliding_attention", "full_attention"] * 2),
        _family("glm"), _family("glm4"), _family("ernie4_5"), _family("helium"), _family("seed_oss"),
        _family("cohere"), _family("cohere2", sliding_window=16), _family("stablelm"), _family("starcoder2"),
        _family("nemotron"), _family("exaone4", sliding_window=16), _family("arcee"), _family("apertus"),
        _family("bitnet"), _family("diffllama"), _family("doge"), _family("hunyuan_v1_dense"), _family("hyperclovax"),
        _family("internlm3"), _family("iquestcoder"), _family("jais2"), _family("nanochat"), _family("lfm2"),
        _family("phi"), _family("persimmon"), _family("gpt_neox"), _family("gpt_neox_japanese"),
        _family("falcon", head_dim=None), _family("mpt"), _family("bloom"), _family("biogpt"),
        _family("gpt2"), _family("gpt_bigcode"), _family("gptj", rotary_dim=8), _family("codegen", rotary_dim=8),
        _family("gpt_neo", attention_types=[[["global", "local"], 2]], num_layers=4, window_size=16),
        _family("opt", word_embed_proj_dim=32, ffn_dim=48), _family("xglm"),
        _family("mixtral", num_local_experts=4), _family("qwen2_moe", **EXPERTS, shared_expert_intermediate_size=16),
        _family("qwen3_moe", **EXPERTS), _family("olmoe", num_experts=4, num_experts_per_tok=2),
        _family("granitemoe", num_local_experts=4), _family("granitemoeshared", num_local_experts=4),
        _family("phimoe", num_local_experts=4), _family("flex_olmo", num_experts=4, num_experts_per_tok=2),
        _family("hunyuan_v1_moe", num_experts=4, moe_topk=2),
        _family("gpt_oss", num_local_experts=4, sliding_window=16),
        _family("ernie4_5_moe", moe_num_experts=4, moe_k=2, moe_intermediate_size=16, moe_layer_start_index=1),
        _family("glm4_moe", **ROUTED, **GROUPED), _family("minicpm3", **LATENT),
        _family("jetmoe", num_local_experts=4, kv_channels=8), _family("minimax", num_local_experts=4),
        _family("deepseek_v2", **LATENT, **ROUTED, **GROUPED), _family("deepseek_v3", **LATENT, **ROUTED, **GROUPED),
        _family("qwen3_5_text", linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=8,
                linear_value_head_dim=8),
        _family("qwen3_next", **EXPERTS, shared_expert_intermediate_size=16, linear_num_value_heads=4,
                linear_num_key_heads=2, linear_key_head_dim=8, linear_value_head_dim=8),
        _family("mamba"), _family("recurrent_gemma", attention_window_size=16), _family("jamba", num_experts=2),
    )
}  # fmt: skip

VARIATIONS: dict[str, Family] = {
    one.name: one
    for one in (
        Family("llama, biases", "llama", {"attention_bias": True, "mlp_bias": True}),
        Family("llama, tied", "llama", {"tie_word_embeddings": True}),
        Family("llama, wide heads", "llama", {"head_dim": 16}),
        Family("llama, one group", "llama", {"num_key_value_heads": 1}),
        Family("llama, no groups", "llama", {"num_key_value_heads": 4}),
        Family("llama, gelu", "llama", {"hidden_act": "gelu"}),
        Family("llama, relu", "llama", {"hidden_act": "relu"}),
        Family("llama, yarn", "llama", {"rope_parameters": YARN}),
        Family("llama, llama3", "llama", {"rope_parameters": LLAMA3}),
        Family("llama, linear", "llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0,
                                                              "rope_theta": 1e4}}),
        Family("llama, dropout", "llama", {"attention_dropout": 0.1}),
        Family("qwen2, yarn", "qwen2", {"rope_parameters": YARN}),
        Family("qwen2, window", "qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2}),
        Family("qwen2, tied", "qwen2", {"tie_word_embeddings": True}),
        Family("qwen3, window", "qwen3", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2}),
        Family("qwen3, wide heads", "qwen3", {"head_dim": 16}),
        Family("mistral, window", "mistral", {"sliding_window": 16}),
        Family("mistral, no window", "mistral", {"sliding_window": None}),
        Family("phi3, part of a head", "phi3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4,
                                                                  "partial_rotary_factor": 0.5}}),
        Family("phi3, window", "phi3", {"sliding_window": 16}),
        Family("smollm3, every second", "smollm3", {"no_rope_layers": [1, 0, 1, 0]}),
        Family("smollm3, all rotated", "smollm3", {"no_rope_layers": [1, 1, 1, 1]}),
        Family("granite, none", "granite", {}),
        Family("granite, residual", "granite", {"residual_multiplier": 0.22}),
        Family("granite, attention", "granite", {"attention_multiplier": 0.2}),
        Family("gemma2, caps that bite", "gemma2", {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
        Family("olmo, clipped", "olmo", {"clip_qkv": 0.5}),
        Family("stablelm, parallel", "stablelm", {"use_parallel_residual": True, "qk_layernorm": True}),
        Family("stablelm, biases", "stablelm", {"use_qkv_bias": True}),
        Family("gpt_neox, serial", "gpt_neox", {"use_parallel_residual": False}),
        Family("falcon, alibi", "falcon", {"head_dim": None, "alibi": True}),
        Family("glm, biases", "glm", {"attention_bias": True}),
    )
}  # fmt: skip


def config_of(family: Family, **more: Any) -> Any:
    """A tiny config of a family; `more` outranks what the family and the base say."""
    from transformers import AutoConfig

    settings = {key: value for key, value in {**BASE, **family.settings, **more}.items() if value is not None}
    settings |= {key: None for key, value in {**family.settings, **more}.items() if value is None and key != "head_dim"}
    return type(AutoConfig.for_model(family.model_type))(**copy.deepcopy(settings))


def build(family: Family, *, attention: str = "eager", dtype: torch.dtype = torch.float32, **more: Any) -> Any:
    """A causal LM with random weights, the same each time, none at a value that would hide a mistake."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(family, **more), attn_implementation=attention, dtype=dtype)
    draw_weights(model)
    return model.eval()


@torch.no_grad()
def draw_weights(model: Any) -> None:
    """Matrices of one size, norms and biases off their neutral values; drawn in fp32, so every dtype has the same."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim >= 2:
            parameter.copy_(drawn * 0.15)
        elif "A_log" in name or name.endswith((".D", "dt_bias")):
            continue  # of state-space layers: their own values are the stable ones
        else:
            parameter.add_((drawn * 0.1).to(parameter.dtype))
