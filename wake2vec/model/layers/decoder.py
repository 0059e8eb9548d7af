"""A decoder layer of Llama's kind, forward and backward written out.

What a module is called only says where to look; whether the layer computes this function, its twin decides. All linear
layers are frozen, so the backward pass needs only what the non-linearities saw: the inputs of the two norms, queries,
keys, values, gate and up. Attention is run again from queries, keys and values (0.5 % of the work at 256 tokens), which
saves its output. The output of the down projection is never needed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wake2vec.model.layers.attention import expand_groups, reads_groups
from wake2vec.model.layers.frozen_linear import FrozenLinear, Gradients, UnknownLayer, frozen_linear
from wake2vec.model.layers.kernels import swiglu, swiglu_backward
from wake2vec.model.precision import deterministic


class Kept(NamedTuple):
    """What the backward pass of a layer needs. t = b * s tokens"""

    x: Tensor  # [t, d] input of the layer
    query: Tensor  # [b, heads, s, e] after the rotation
    key: Tensor  # [b, groups, s, e] after the rotation
    value: Tensor  # [b, groups, s, e]
    middle: Tensor  # [t, d] input of the second norm
    gate: Tensor  # [t, f]
    up: Tensor  # [t, f]
    bare_query: Tensor | None  # [b, s, heads, e] before its norm, where it has one
    bare_key: Tensor | None  # [b, s, groups, e]


class Positions(NamedTuple):
    """Cosines and sines of the positions [1 or b, s, 1, e], and what each may look at where that is not all before it.

    The mask is the library's own for this layer: true, or 0 when it is a number to add, where a key may be seen.
    """

    cos: Tensor
    sin: Tensor
    mask: Tensor | None = None  # [1 or b, 1 or heads, s, s]


@dataclass(frozen=True, kw_only=True)
class Norm:
    """RMS norm with frozen weights, statistics in fp32."""

    weight: Tensor
    eps: float

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)

    def backward(self, grad: Tensor, x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            out = self.forward(leaf)
        return torch.autograd.grad(out, leaf, grad)[0]


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """The parts of one decoder layer. `attend` is q, k, v or one fused projection; `feed` is gate, up or one fused."""

    attend: tuple[FrozenLinear, ...]
    out: FrozenLinear
    feed: tuple[FrozenLinear, ...]
    down: FrozenLinear
    first_norm: Norm
    second_norm: Norm
    heads: int
    groups: int
    head_dim: int
    scaling: float
    query_norm: Norm | None  # of each head, before the rotation
    key_norm: Norm | None
    rotates: bool  # False in a layer without positions of its own (NoPE)

    def parameters(self) -> list[nn.Parameter]:
        """The adapters' parameters, in a fixed order."""
        linears = (*self.attend, self.out, *self.feed, self.down)
        return [weight for linear in linears if linear.adapter for weight in (linear.adapter.down, linear.adapter.up)]

    def forward(self, x: Tensor, positions: Positions, shape: tuple[int, int]) -> tuple[Tensor, Kept]:
        """Output of the layer [t, d] and what its backward pass needs."""
        kept = self.recompute(x, positions, shape)
        return self.down.forward(swiglu(kept.gate, kept.up), shape, add=kept.middle), kept

    def recompute(self, x: Tensor, positions: Positions, shape: tuple[int, int]) -> Kept:
        """Everything up to the down projection."""
        normed = self.first_norm.forward(x)
        query, key, value, *bare = self._attention_inputs(normed, positions, shape)
        del normed
        middle = self.out.forward(self._sdpa(query, key, value, positions.mask), shape, add=x)
        normed = self.second_norm.forward(middle)
        gate, up = self._split(self.feed, normed, shape)
        return Kept(x, query, key, value, middle, gate, up, *bare)

    def backward(
        self, grad: Tensor, kept: Kept, positions: Positions, shape: tuple[int, int], into: Gradients
    ) -> Tensor:
        """Gradient of the layer's input [t, d]; the adapters' go to `into`."""
        grad = self._feed_backward(grad, kept, shape, into)
        attended, gradients_of = self._attention_again(kept, positions.mask)
        through = self.out.backward(grad, lambda: attended, shape, into)
        query, key, value = gradients_of(through)
        del through
        query, key = (self._turn(part.transpose(1, 2), positions, back=True) for part in (query, key))
        if self.query_norm and self.key_norm and kept.bare_query is not None and kept.bare_key is not None:
            query = self.query_norm.backward(query, kept.bare_query)
            key = self.key_norm.backward(key, kept.bare_key)
        parts = [part.reshape(grad.shape[0], -1) for part in (query, key, value.transpose(1, 2))]
        del query, key, value
        normed = _once(lambda: self.first_norm.forward(kept.x))
        through = self._joined_backward(self.attend, parts, normed, shape, into)
        return grad.add_(self.first_norm.backward(through, kept.x))

    def _feed_backward(self, grad: Tensor, kept: Kept, shape: tuple[int, int], into: Gradients) -> Tensor:
        """Gradient of the second norm's input, from that of the layer's output."""
        through = self.down.backward(grad, lambda: swiglu(kept.gate, kept.up), shape, into)
        gradients = list(swiglu_backward(through, kept.gate, kept.up))
        del through
        normed = _once(lambda: self.second_norm.forward(kept.middle))
        through = self._joined_backward(self.feed, gradients, normed, shape, into)
        return self.second_norm.backward(through, kept.middle).add_(grad)

    def _joined_backward(
        self,
        linears: tuple[FrozenLinear, ...],
        gradients: list[Tensor],
        normed: Callable[[], Tensor],
        shape: tuple[int, int],
        into: Gradients,
    ) -> Tensor:
        """Gradient of what several projections share as their input."""
        if len(linears) == 1:
            return linears[0].backward(torch.cat(gradients, dim=-1), normed, shape, into)
        total: Tensor | None = None
        for linear in linears:
            total = linear.backward(gradients.pop(0), normed, shape, into, add=total)
        assert total is not None, "a layer without projections"
        return total

    def _attention_inputs(
        self, normed: Tensor, positions: Positions, shape: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Query, key and value [b, heads, s, e]; query and key as they were before their norms, if they have any."""
        widths = [self.heads * self.head_dim, self.groups * self.head_dim, self.groups * self.head_dim]
        if len(self.attend) == 1:
            parts = torch.split(self.attend[0].forward(normed, shape), widths, dim=-1)
        else:
            parts = tuple(linear.forward(normed, shape) for linear in self.attend)
        query, key, value = (part.view(*shape, -1, self.head_dim) for part in parts)  # [b, s, heads, e]
        bare: tuple[Tensor, Tensor] | tuple[None, None] = None, None
        if self.query_norm and self.key_norm:
            bare = query, key
            query, key = self.query_norm.forward(query), self.key_norm.forward(key)
        query, key = self._turn(query, positions), self._turn(key, positions)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), *bare

    def _turn(self, x: Tensor, positions: Positions, *, back: bool = False) -> Tensor:
        return _rotate(x, positions, back=back) if self.rotates else x

    def _split(self, linears: tuple[FrozenLinear, ...], x: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        if len(linears) == 1:
            gate, up = linears[0].forward(x, shape).chunk(2, dim=-1)
            return gate, up
        return linears[0].forward(x, shape), linears[1].forward(x, shape)

    def _sdpa(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attention, causal where no mask says otherwise. [b, heads, s, e] with [b, groups, s, e] -> [t, heads * e]"""
        grouped = self.groups != self.heads and reads_groups(query)
        if not grouped:
            key, value = expand_groups(key, self.heads), expand_groups(value, self.heads)
        mask = mask.to(query.dtype) if mask is not None and mask.is_floating_point() else mask
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=self.scaling, enable_gqa=grouped
        )
        return out.transpose(1, 2).reshape(out.shape[0] * out.shape[2], -1)

    def _attention_again(
        self, kept: Kept, mask: Tensor | None
    ) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
        """Attention's output [t, heads * e], and the way from its gradient to those of query, key and value."""
        leaves = [part.detach().requires_grad_() for part in (kept.query, kept.key, kept.value)]
        with torch.enable_grad():
            out = self._sdpa(leaves[0], leaves[1], leaves[2], mask)

        def gradients_of(grad: Tensor) -> tuple[Tensor, ...]:
            with deterministic() if grad.is_cuda else nullcontext():
                return torch.autograd.grad(out, leaves, grad)

        return out.detach(), gradients_of


def read_decoder(layer: Any) -> Decoder:
    """The parts of a layer of a known shape. Raises UnknownLayer, saying what is not known, for any other."""
    try:
        attention, mlp = layer.self_attn, layer.mlp
        fused = hasattr(attention, "qkv_proj")
        attend = [attention.qkv_proj] if fused else [attention.q_proj, attention.k_proj, attention.v_proj]
        feed = [mlp.gate_up_proj] if hasattr(mlp, "gate_up_proj") else [mlp.gate_proj, mlp.up_proj]
        config = attention.config
        decoder = Decoder(
            attend=tuple(map(frozen_linear, attend)),
            out=frozen_linear(attention.o_proj),
            feed=tuple(map(frozen_linear, feed)),
            down=frozen_linear(mlp.down_proj),
            first_norm=_norm(layer.input_layernorm),
            second_norm=_norm(layer.post_attention_layernorm),
            heads=config.num_attention_heads,
            groups=config.num_key_value_heads,
            head_dim=attention.head_dim,
            scaling=attention.scaling,
            query_norm=_norm(attention.q_norm) if hasattr(attention, "q_norm") else None,
            key_norm=_norm(attention.k_norm) if hasattr(attention, "k_norm") else None,
            rotates=bool(getattr(attention, "use_rope", True)),
        )
    except AttributeError as exc:
        raise UnknownLayer(f"{type(layer).__name__} ({exc})") from exc
    _refuse_extras(layer, attention, mlp)
    return decoder


def _norm(module: Any) -> Norm:
    if not type(module).__name__.endswith("RMSNorm") or not hasattr(module, "variance_epsilon"):
        raise UnknownLayer(type(module).__name__)
    if module.weight.requires_grad:
        raise UnknownLayer("a norm whose weight trains")
    return Norm(weight=module.weight.detach(), eps=module.variance_epsilon)


KNOWN = {
    "layer": {
        "self_attn",
        "mlp",
        "input_layernorm",
        "post_attention_layernorm",
        "resid_attn_dropout",
        "resid_mlp_dropout",
    },
    "attention": {"q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "q_norm", "k_norm"},
    "mlp": {"gate_proj", "up_proj", "gate_up_proj", "down_proj", "act_fn", "activation_fn"},
}


def _refuse_extras(layer: Any, attention: Any, mlp: Any) -> None:
    """A module that the written-out path would not run is a reason not to take it (the norms of Gemma, for one)."""
    for part, module in (("layer", layer), ("attention", attention), ("mlp", mlp)):
        for name, child in module.named_children():
            is_idle = isinstance(child, nn.Dropout) and child.p == 0.0
            if name not in KNOWN[part] or (name.startswith("resid") and not is_idle):
                raise UnknownLayer(f"{type(layer).__name__} with {name}")
    activation = getattr(mlp, "act_fn", None) or getattr(mlp, "activation_fn", None)
    if type(activation).__name__ not in ("SiLU", "SiLUActivation"):
        raise UnknownLayer(f"{type(layer).__name__} with {type(activation).__name__}")
    if getattr(attention, "attention_dropout", 0.0):
        raise UnknownLayer(f"{type(layer).__name__} with attention dropout")


def _rotate(x: Tensor, positions: Positions, *, back: bool = False) -> Tensor:
    """Rotary positions on the first features of each head, or the transpose of it. [b, s, heads, e]"""
    width, half = positions.cos.shape[-1], positions.cos.shape[-1] // 2
    rotated = x[..., :width]
    # the two halves of the sines are equal, so the transpose of a rotation is the rotation by minus the angle
    sign, sin = (-1 if back else 1), positions.sin[..., :half]
    out = rotated * positions.cos
    out[..., :half].addcmul_(rotated[..., half:], sin, value=-sign)
    out[..., half:].addcmul_(rotated[..., :half], sin, value=sign)
    return out if width == x.shape[-1] else torch.cat((out, x[..., width:]), dim=-1)


def _once(make: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Make a tensor when it is first asked for, and keep it: adapters share it, and without any nobody asks."""
    found: list[Tensor] = []

    def get() -> Tensor:
        if not found:
            found.append(make())
        return found[0]

    return get
