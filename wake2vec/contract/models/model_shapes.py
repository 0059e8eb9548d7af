"""The shapes of the models in `jobs/`, for estimates without a download. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What decides the memory and the work of a decoder."""

    name: str  # Hugging Face id
    family: str  # model_type
    layers: int
    width: int
    feed: int  # of the MLP
    heads: int
    groups: int  # key and value heads
    head_dim: int
    matrix_rows: int  # of the published embedding, padding included
    tokenizer_length: int  # new ids start here
    tied: bool

    @property
    def down_weights(self) -> int:
        """Weights of the down projections, which a recompute skips."""
        return self.layers * self.width * self.feed

    @property
    def body_weights(self) -> int:
        """Weights of all quantisable linears."""
        attention = self.width * self.head_dim * (2 * self.heads + 2 * self.groups)
        return self.layers * (attention + (2 if self.family == "gpt2" else 3) * self.width * self.feed)

    @property
    def largest_linear(self) -> int:
        """Weights of the largest linear layer: its dequantised copy is a buffer of every pass."""
        return self.width * self.feed * (2 if self.family == "phi3" else 1)


def _shape(name: str, family: str, *numbers: int, tied: bool) -> ModelShape:
    keys = ("layers", "width", "feed", "heads", "groups", "head_dim", "matrix_rows", "tokenizer_length")
    return ModelShape(name=name, family=family, tied=tied, **dict(zip(keys, numbers, strict=True)))


# from the config.json and tokenizer of each model as published
SHAPES: dict[str, ModelShape] = {
    shape.name: shape
    for shape in (
        _shape("Qwen/Qwen2.5-14B", "qwen2", 48, 5120, 13824, 40, 8, 128, 152064, 151665, tied=False),
        _shape("Qwen/Qwen2.5-32B", "qwen2", 64, 5120, 27648, 40, 8, 128, 152064, 151665, tied=False),
        _shape("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "llama", 22, 2048, 5632, 32, 4, 64, 32000, 32000, tied=False),
        _shape("meta-llama/Llama-3.2-1B", "llama", 16, 2048, 8192, 32, 8, 64, 128256, 128256, tied=True),
        _shape("meta-llama/Llama-3.2-3B", "llama", 28, 3072, 8192, 24, 8, 128, 128256, 128256, tied=True),
        _shape("meta-llama/Llama-3.1-8B", "llama", 32, 4096, 14336, 32, 8, 128, 128256, 128256, tied=False),
        _shape("mistralai/Mistral-7B-v0.3", "mistral", 32, 4096, 14336, 32, 8, 128, 32768, 32768, tied=False),
        _shape("Qwen/Qwen3-8B-Base", "qwen3", 36, 4096, 12288, 32, 8, 128, 151936, 151669, tied=False),
        _shape("google/gemma-2-9b", "gemma2", 42, 3584, 14336, 16, 8, 256, 256000, 256000, tied=True),
        _shape("distilbert/distilgpt2", "gpt2", 6, 768, 3072, 12, 12, 64, 50257, 50257, tied=True),
        _shape("microsoft/Phi-3.5-mini-instruct", "phi3", 32, 3072, 8192, 32, 32, 96, 32064, 32011, tied=False),
    )
}
ALIASES = {
    "Qwen/Qwen2.5-14B-Instruct": "Qwen/Qwen2.5-14B",
    "Qwen/Qwen3-8B": "Qwen/Qwen3-8B-Base",
    "google/gemma-2-9b-it": "google/gemma-2-9b",
    "mistralai/Mistral-7B-v0.1": "mistralai/Mistral-7B-v0.3",
}


def known_shape(name: str) -> ModelShape | None:
    """The bundled shape of a published model, if there is one."""
    return SHAPES.get(ALIASES.get(name, name))


LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
WIDTH = ("hidden_size", "n_embd", "d_model")
FEED = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")


def shape_of_config(name: str, config: Mapping[str, Any], *, tokenizer_length: int | None = None) -> ModelShape:
    """The shape in a model's config.json. Raises KeyError for a config that is not of a decoder like these."""
    heads, width, rows = _number(config, HEADS), _number(config, WIDTH), int(config["vocab_size"])
    return ModelShape(
        name=name,
        family=str(config["model_type"]),
        layers=_number(config, LAYERS),
        width=width,
        feed=_number(config, FEED, otherwise=4 * width),
        heads=heads,
        groups=_number(config, ("num_key_value_heads", "num_kv_heads"), otherwise=heads),
        head_dim=int(config.get("head_dim") or width // heads),
        matrix_rows=rows,
        tokenizer_length=tokenizer_length or rows,
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def _number(config: Mapping[str, Any], names: Sequence[str], *, otherwise: int | None = None) -> int:
    """By the first of several names that a config has; the largest where each layer has its own."""
    found = next((value for name in names if (value := config.get(name))), otherwise)
    if found is None:
        raise KeyError(names[0])
    return int(max(found) if isinstance(found, list | tuple) else found)
