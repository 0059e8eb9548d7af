"""Whether the written-out layer is a model's own layer: both are run on a small twin of each kind of layer it has.

The twin is the layer's own class under the model's config with small widths: its rotation, scales, caps, norms, biases
and activation are there, whatever they are called. In fp32 on the CPU a cap that hardly bites is still seen, which
half precision would hide. The weights are large, so that it bites.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from wake2vec.model.layers.decoder import Decoder, Positions, read_decoder
from wake2vec.model.layers.frozen_linear import Gradients, UnknownLayer

WIDTH, FEED, HEADS = 64, 96, 4
BATCH, LENGTH, WINDOW = 2, 24, 8
STRENGTHS = (0.1, 1.0)  # standard deviations of the weights: attention spread out, and on one key
BOUND = 1e-4  # of the largest value; rounding stays below 1e-5

_found: dict[Any, str] = {}


def check_twins(model: Any, layers: list[Any]) -> None:
    """Raise UnknownLayer, naming the first layer of its kind, unless each computes what is written out."""
    for index, layer in enumerate(layers):
        config = layer.self_attn.config
        key = (type(layer), config.to_json_string(use_diff=False), _settings(layer))
        if key not in _found:
            _found[key] = _difference(model, layer, copy.deepcopy(config), index)
        if _found[key]:
            raise UnknownLayer(f"layer {index}, {type(layer).__name__}: {_found[key]}")


def _settings(layer: Any) -> tuple[Any, ...]:
    """What tells one layer of a class from another: the plain values that it and its two halves hold."""
    parts = (layer, layer.self_attn, layer.mlp)
    return tuple(
        (name, value)
        for part in parts
        for name, value in sorted(vars(part).items())
        if name not in ("layer_idx", "training") and isinstance(value, bool | int | float | str | None)
    )


def _difference(model: Any, layer: Any, config: Any, index: int) -> str:
    """How the twin's own function differs from the written-out one, in words; nothing when it does not."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(0)
            twin = _twin(layer, config, index)
            cos, sin = _rotation(model)
            worst = max(_deviation(twin, cos, sin, strength) for strength in STRENGTHS)
    except UnknownLayer as exc:
        return str(exc)
    except Exception as exc:  # a class of any make: whatever it does not stand leaves it to the library
        return f"no small twin of it can be run ({type(exc).__name__}: {str(exc).splitlines()[0] if str(exc) else ''})"
    return "" if worst < BOUND else f"its function is another one, by {worst:.2g} of the largest value"


def _twin(layer: Any, config: Any, index: int) -> Any:
    groups = layer.self_attn.config.num_key_value_heads
    config.head_dim = layer.self_attn.head_dim  # rotations come in this width
    config.num_key_value_heads = HEADS if groups == config.num_attention_heads else min(groups, 2)
    config.hidden_size, config.intermediate_size, config.num_attention_heads = WIDTH, FEED, HEADS
    config._attn_implementation = "eager"  # the library's full definition: others leave out what they do not know
    return type(layer)(config, index).float().eval().requires_grad_(False)


def _rotation(model: Any) -> tuple[Tensor, Tensor]:
    """Cosines and sines as the model's decoder gives them to its layers. [1, s, e] each"""
    rotary = model.get_decoder().rotary_emb
    device = next(rotary.buffers()).device
    x, ids = torch.zeros(1, LENGTH, 1, device=device), torch.arange(LENGTH, device=device).unsqueeze(0)
    cos, sin = rotary(x, ids)
    return cos.cpu().float(), sin.cpu().float()


def _deviation(twin: Any, cos: Tensor, sin: Tensor, strength: float) -> float:
    """The largest difference in output or gradient, without and with a window, over the largest value."""
    with torch.no_grad():
        for parameter in twin.parameters():
            centre = 0.0 if parameter.ndim > 1 else parameter
            parameter.copy_(centre + torch.randn(parameter.shape) * strength)
    x, grad = torch.randn(BATCH, LENGTH, WIDTH), torch.randn(BATCH, LENGTH, WIDTH)
    decoder, worst = read_decoder(twin), 0.0
    for window in (LENGTH, WINDOW):
        mask = _mask(window)
        leaf = x.clone().requires_grad_()
        theirs = twin(leaf, attention_mask=mask, position_embeddings=(cos, sin))
        theirs = theirs if isinstance(theirs, Tensor) else theirs[0]
        positions = Positions(cos.unsqueeze(2), sin.unsqueeze(2), None if window == LENGTH else mask)
        expected = theirs.detach(), torch.autograd.grad(theirs, leaf, grad)[0]
        for found, right in zip(_written_out(decoder, x, grad, positions), expected, strict=True):
            worst = max(worst, float((found - right).abs().max() / right.abs().max()))
    return worst


@torch.no_grad()
def _written_out(decoder: Decoder, x: Tensor, grad: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
    shape = (BATCH, LENGTH)
    out, kept = decoder.forward(x.flatten(0, 1), positions, shape)
    found = decoder.backward(grad.flatten(0, 1).clone(), kept, positions, shape, Gradients([]))
    return out.view(x.shape), found.view(x.shape)


def _mask(window: int) -> Tensor:
    """0 where a key may be seen, else a very negative number. [1, 1, s, s]"""
    distance = torch.arange(LENGTH).unsqueeze(1) - torch.arange(LENGTH)
    seen = (distance >= 0) & (distance < window)
    return torch.zeros(LENGTH, LENGTH).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]
