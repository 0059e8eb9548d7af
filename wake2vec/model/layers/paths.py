"""Which way each decoder layer takes in training: written out here or the library's own, kept or recomputed.

The ways compute the same numbers. They differ in what they keep: of the written-out layers `lean` what the backward
pass needs, `checkpoint` the layer's input, `offload` the same on the host. Of the library's layers `recompute` keeps
the input, and `autograd` leaves the model as the library wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wake2vec.contract.plan import WRITTEN_OUT, LayerPath
from wake2vec.model.layers.decoder import Decoder, Kept, Positions, read_decoder
from wake2vec.model.layers.frozen_linear import Gradients, UnknownLayer
from wake2vec.model.layers.host_checkpoints import HostCheckpoints
from wake2vec.model.layers.stage import Elsewhere
from wake2vec.model.layers.twin import check_twins


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
    """One decoder layer. Inputs: hidden states, the way, the positions, and the adapters' parameters."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, way: _Way, positions: Positions, *_parameters: nn.Parameter) -> Tensor:
        shape = (x.shape[0], x.shape[1])
        out, kept = way.decoder.forward(x.reshape(-1, x.shape[-1]), positions, shape)
        ctx.way, ctx.positions, ctx.shape = way, positions, shape
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
            kept = way.decoder.recompute(x.reshape(-1, x.shape[-1]), ctx.positions, ctx.shape)
        into = Gradients(way.decoder.parameters())
        found = way.decoder.backward(grad.reshape(-1, grad.shape[-1]), kept, ctx.positions, ctx.shape, into)
        return found.view(grad.shape), None, None, *into.found


class _Planned:
    """Stands in for a decoder layer's forward; calls the library's own for whatever is not training on whole blocks."""

    def __init__(self, original: Callable[..., Tensor], way: _Way) -> None:
        self.original, self.way = original, way

    def __call__(self, hidden_states: Tensor, **more: Any) -> Tensor:
        embedded, mask = more.get("position_embeddings"), more.get("attention_mask")
        if not _trains(more) or embedded is None:
            return self.original(hidden_states, **more)
        cos, sin = (part.unsqueeze(2).to(hidden_states.dtype) for part in embedded)
        parameters = self.way.decoder.parameters()
        found: Tensor = _Layer.apply(hidden_states, self.way, Positions(cos, sin, mask), *parameters)  # type: ignore[no-untyped-call]
        return found


class _Recomputed:
    """Stands in for a decoder layer's forward: PyTorch runs the library's own again in the backward pass."""

    def __init__(self, original: Callable[..., Any]) -> None:
        self.original = original

    def __call__(self, *inputs: Any, **more: Any) -> Any:
        if not _trains(more):
            return self.original(*inputs, **more)
        return checkpoint(self.original, *inputs, use_reentrant=False, **more)


def _trains(more: Mapping[str, Any]) -> bool:
    """Whether a call is part of training, not of generation or evaluation."""
    return torch.is_grad_enabled() and more.get("past_key_values") is None


def use_layers(model: Any, path: LayerPath) -> LayersInUse:
    """Set the way of every decoder layer of a causal LM (plain or PEFT); may be called again with another way.

    Layers that are not of the written-out kind, or whose weights train, are recomputed by PyTorch instead, and the note
    says so.
    """
    layers = decoder_layers(model)
    _restore(layers)
    if path in WRITTEN_OUT:
        try:
            _write_out(model, layers, path)
            return LayersInUse(path=path)
        except UnknownLayer as exc:
            note = f"no layer that is written out computes what the model's do ({exc}): the library's are used"
            return replace(use_layers(model, "recompute"), note=note)
    for layer in layers if path == "recompute" else ():
        layer.forward = _Recomputed(layer.forward)
    return LayersInUse(path=path)


def _write_out(model: Any, layers: list[Any], path: LayerPath) -> None:
    decoders = [read_decoder(layer) for layer in layers]
    check_twins(plain(model), layers)
    host = HostCheckpoints(len(layers)) if path == "offload" else None
    for index, (layer, decoder) in enumerate(zip(layers, decoders, strict=True)):
        layer.forward = _Planned(layer.forward, _Way(index=index, decoder=decoder, keep=path == "lean", host=host))


def plain(model: Any) -> Any:
    """The causal LM itself, out of PEFT's wrapper if it is in one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder_layers(model: Any) -> list[Any]:
    """The decoder layers of a causal LM, in order, without those that lie on another card."""
    decoder = plain(model).get_decoder()
    number = decoder.config.num_hidden_layers
    lists = [part for part in decoder.children() if isinstance(part, nn.ModuleList) and len(part) == number]
    return [layer for layer in (lists[0] if lists else ()) if not isinstance(vars(layer).get("forward"), Elsewhere)]


def _restore(layers: list[Any]) -> None:
    for layer in layers:
        if isinstance(layer.__dict__.get("forward"), (_Planned, _Recomputed)):
            del layer.forward
