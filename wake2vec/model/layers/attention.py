"""Causal attention through SDPA with keys and values expanded beforehand, under a name that transformers knows."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

NAME = "wake2vec_sdpa"


def register_attention() -> str:
    """Make the function known to transformers; return its name. Calling it again changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


def attention_of(model_class: Any) -> str:
    """Ours where a model hands its whole attention to such a function, else the library's eager one.

    A model that says no to SDPA caps its scores or adds sinks; one without the interface has code of its own, which
    takes no mask from us.
    """
    whole = ("_supports_sdpa", "_supports_attention_backend")
    return register_attention() if all(getattr(model_class, flag, False) for flag in whole) else "eager"


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **_more: Any,
) -> tuple[Tensor, None]:
    """[b, heads, q, e] with [b, groups, k, e] -> [b, q, heads, e].

    transformers' own function passes enable_gqa, for which cards before sm80 only have the slow, large math kernel.
    """
    heads = query.shape[1]
    key, value = expand_groups(key, heads), expand_groups(value, heads)
    wanted = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = bool(wanted) and attention_mask is None and query.shape[2] > 1
    out = F.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling, is_causal=causal
    )
    return out.transpose(1, 2).contiguous(), None


def expand_groups(x: Tensor, heads: int) -> Tensor:
    """Repeat each group of keys or values for its heads. [b, groups, k, e] -> [b, heads, k, e]"""
    groups = x.shape[1]
    if groups == heads:
        return x
    b, _, k, e = x.shape
    return x.unsqueeze(2).expand(b, groups, heads // groups, k, e).reshape(b, heads, k, e)


def reads_groups(query: Tensor) -> bool:
    """Whether SDPA's fast kernels take unexpanded keys and values here: half precision from sm80 on, no earlier."""
    return query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and _capability(query.device) >= (8, 0)


@functools.cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
