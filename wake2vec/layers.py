"""Which way each decoder layer takes in training: all kept, recomputed, or recomputed from the host.

The ways compute the same numbers. They differ in what they keep: `lean` what the backward pass needs, `checkpoint` the
layer's input, `offload` the same on the host. `autograd` leaves the model as the library wrote it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wake2vec.decoder import Decoder, Kept, Rotation, read_decoder
from wake2vec.frozen import Gradients, UnknownLayer
from wake2vec.offload import HostCheckpoints
from wake2vec.plan import LayerPath


@dataclass(frozen=True, kw_only=True)
class LayersInUse:
    """The way that was really taken, and why it is not the one asked for, if it is not."""

    path: LayerPath
    note: str = ""


@dataclass(kw_only=True)
class _Way:
    """How one layer is run."""

    index: int
    decoder: Decoder
    keep: bool
    host: HostCheckpoints | None


class _Layer(torch.autograd.Function):
    """One decoder layer. Inputs: hidden states, the way, the rotation, and the adapters' parameters."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, way: _Way, rotation: Rotation, *_parameters: nn.Parameter) -> Tensor:
        shape = (x.shape[0], x.shape[1])
        out, kept = way.decoder.forward(x.reshape(-1, x.shape[-1]), rotation, shape)
        ctx.way, ctx.rotation, ctx.shape = way, rotation, shape
        if way.keep:
            ctx.save_for_backward(*kept)
        elif way.host is None:
            ctx.save_for_backward(x)
        else:
            way.host.store(way.index, x)
        return out.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        way: _Way = ctx.way
        if way.keep:
            kept = Kept(*ctx.saved_tensors)
        else:
            x = ctx.saved_tensors[0] if way.host is None else way.host.fetch(way.index)
            kept = way.decoder.recompute(x.reshape(-1, x.shape[-1]), ctx.rotation, ctx.shape)
        into = Gradients(way.decoder.parameters())
        found = way.decoder.backward(grad.reshape(-1, grad.shape[-1]), kept, ctx.rotation, ctx.shape, into)
        return found.view(grad.shape), None, None, *into.found


class _Planned:
    """Stands in for a decoder layer's forward; calls the library's own for whatever is not training on whole blocks."""

    def __init__(self, original: Callable[..., Tensor], way: _Way, window: int | None) -> None:
        self.original, self.way, self.window = original, way, window

    def __call__(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        past_key_values: Any = None,
        **more: Any,
    ) -> Tensor:
        inside = self.window is None or hidden_states.shape[1] <= self.window
        if (
            torch.is_grad_enabled()
            and attention_mask is None
            and past_key_values is None
            and position_embeddings is not None
            and inside
        ):
            cos, sin = (part.unsqueeze(2).to(hidden_states.dtype) for part in position_embeddings)
            parameters = self.way.decoder.parameters()
            found: Tensor = _Layer.apply(hidden_states, self.way, Rotation(cos, sin), *parameters)  # type: ignore[no-untyped-call]
            return found
        return self.original(
            hidden_states,
            attention_mask=attention_mask,
            position_embeddings=position_embeddings,
            past_key_values=past_key_values,
            **more,
        )


class _Recomputed:
    """Stands in for the forward of a layer of unknown shape: PyTorch runs it again in the backward pass."""

    def __init__(self, original: Callable[..., Tensor]) -> None:
        self.original = original

    def __call__(self, hidden_states: Tensor, **more: Any) -> Tensor:
        if not torch.is_grad_enabled() or more.get("past_key_values") is not None:
            return self.original(hidden_states, **more)
        found: Tensor = checkpoint(self.original, hidden_states, use_reentrant=False, **more)
        return found


def use_layers(model: Any, path: LayerPath) -> LayersInUse:
    """Set the way of every decoder layer of a causal LM (plain or PEFT); may be called again with another way.

    A model whose layers are not known, or whose weights train, is recomputed by PyTorch instead, and the note says so.
    """
    layers = decoder_layers(model)
    _restore(layers)
    if path == "autograd":
        return LayersInUse(path="autograd")
    try:
        decoders = [read_decoder(layer) for layer in layers]
    except UnknownLayer as exc:
        for layer in layers:
            layer.forward = _Recomputed(layer.forward)
        note = "" if path == "checkpoint" else f"{path} is not possible here ({exc}): layers are recomputed"
        return LayersInUse(path="checkpoint", note=note)
    host = HostCheckpoints(len(layers)) if path == "offload" else None
    window = getattr(model.config, "sliding_window", None)
    window = window if getattr(model.config, "use_sliding_window", True) else None
    for index, (layer, decoder) in enumerate(zip(layers, decoders, strict=True)):
        way = _Way(index=index, decoder=decoder, keep=path == "lean", host=host)
        layer.forward = _Planned(layer.forward, way, window)
    return LayersInUse(path=path)


def decoder_layers(model: Any) -> list[Any]:
    """The decoder layers of a causal LM, in order."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return list(base.get_decoder().layers)


def _restore(layers: list[Any]) -> None:
    for layer in layers:
        if isinstance(layer.__dict__.get("forward"), (_Planned, _Recomputed)):
            del layer.forward
