"""Models of real shapes with random weights, quantised like published ones, on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wake2vec.contract.models.model_shapes import ModelShape
from wake2vec.model.bare import empty_model
from wake2vec.model.precision import Precision
from wake2vec.model.quantise import fill_linear, is_quantised

TINY = ModelShape(
    name="tiny", family="llama", layers=2, width=64, feed=128, heads=4, groups=2, head_dim=16,
    matrix_rows=512, tokenizer_length=500, tied=False,
)  # fmt: skip
STANDARD_DEVIATION = 0.02


def config_of(shape: ModelShape) -> Any:
    """A transformers config of this shape."""
    from transformers import AutoConfig

    return AutoConfig.for_model(
        shape.family,
        vocab_size=shape.matrix_rows,
        hidden_size=shape.width,
        intermediate_size=shape.feed,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.groups,
        head_dim=shape.head_dim,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def random_body(shape: ModelShape, precision: Precision, device: torch.device) -> Any:
    """A causal LM whose decoder layers are filled and whose embedding and head are still empty."""
    model = empty_model(config_of(shape), precision)
    generator = torch.Generator(device=device).manual_seed(7)
    for name, module in model.named_modules():
        if name.endswith(("embed_tokens", "lm_head")):
            continue
        for leaf, parameter in list(module.named_parameters(recurse=False)):
            value = _random(parameter.shape, precision.dtype, device, generator)
            if leaf == "weight" and is_quantised(module):
                fill_linear(module, value, precision, device)
            else:
                fixed = torch.ones_like(value) if "norm" in name else value
                setattr(module, leaf, nn.Parameter(fixed, requires_grad=False))
        for leaf, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, leaf, nn.Buffer(buffer.to(device), persistent=False))
    return model.requires_grad_(False).train()


def fill_matrices(model: Any, rows: int, width: int, dtype: torch.dtype, device: torch.device, *, tied: bool) -> None:
    """Give the model a random embedding and head of `rows` rows."""
    generator = torch.Generator(device=device).manual_seed(8)
    embedding = nn.Embedding(1, width)
    embedding.weight = nn.Parameter(_random((rows, width), dtype, device, generator), requires_grad=False)
    head = nn.Linear(width, 1, bias=False)
    weight = (
        embedding.weight
        if tied
        else nn.Parameter(_random((rows, width), dtype, device, generator), requires_grad=False)
    )
    head.weight = weight
    embedding.num_embeddings = head.out_features = rows
    model.set_input_embeddings(embedding)
    model.set_output_embeddings(head)
    model.config.vocab_size = rows


def clear_matrices(model: Any) -> None:
    """Take embedding and head away again, and with them what a contender made."""
    model.set_input_embeddings(nn.Embedding(1, 1, device="meta"))
    model.set_output_embeddings(nn.Linear(1, 1, bias=False, device="meta"))


def _random(
    size: tuple[int, ...] | torch.Size, dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> Tensor:
    return torch.empty(size, dtype=dtype, device=device).normal_(std=STANDARD_DEVIATION, generator=generator)
