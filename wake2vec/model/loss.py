"""Cross-entropy over a split vocabulary, a block at a time, with the gradients formed on the way.

No `[tokens, vocabulary]` matrix ever exists. Statistics are fp32 (fp64 for fp64 input). The first pass over the
vocabulary finds the log-normaliser of every token, the second forms the gradients:
dlogits = (softmax - one-hot) * scale, multiplied out in fp32 before the cast to the hidden states' dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wake2vec.model.layers.kernels import HALF, add_product, product
from wake2vec.model.split_vocabulary import Block, SplitHead

IGNORE = -100
BLOCK_BYTES = 64 << 20  # of one block of fp32 logits


@dataclass(frozen=True, kw_only=True)
class BlockedLoss:
    """Sum of the cross-entropy in nats, and the scalar to call `backward` on."""

    total: Tensor  # [] nats over the target tokens, unscaled, detached
    token_nll: Tensor  # [tokens] nats; 0 where the target is ignored
    scaled: Tensor  # [] total * scale; its backward must start from 1 (plain `.backward()`)


def blocked_cross_entropy(
    hidden: Tensor,
    head: SplitHead,
    targets: Tensor,
    *,
    scale: float = 1.0,
    vocab_block: int | None = None,
) -> BlockedLoss:
    """Cross-entropy of `targets` [tokens] under `hidden` [tokens, d] against every row of the head.

    With gradients enabled, the gradient of trainable head rows, times `scale`, is ADDED to their `.grad` during this
    call, in fp32; that of `hidden` comes with `scaled.backward()`. Under `no_grad` only the first pass is made.
    """
    if head.base.dtype in HALF:
        hidden = hidden.to(head.base.dtype)  # a residual stream held in fp32 ends at the head
    size = vocab_block or default_vocab_block(hidden.shape[0])
    if not torch.is_grad_enabled():
        nll = _token_nll(hidden, head, targets, size)[0]
        total = nll.sum()
        return BlockedLoss(total=total, token_nll=nll, scaled=total * scale)
    scaled, nll = _BlockedCrossEntropy.apply(hidden, head, targets, scale, size)  # type: ignore[no-untyped-call]
    return BlockedLoss(total=nll.sum(), token_nll=nll, scaled=scaled)


def default_vocab_block(tokens: int) -> int:
    """Ids per block: as many as fit in BLOCK_BYTES of fp32 logits, within 1,024 to 8,192, a multiple of 64."""
    return max(1024, min(8192, BLOCK_BYTES // (4 * max(tokens, 1)) // 64 * 64))


class _BlockedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: SplitHead, targets: Tensor, scale: float, size: int
    ) -> tuple[Tensor, Tensor]:
        nll, normaliser = _token_nll(hidden, head, targets, size)
        weight = (targets != IGNORE).to(normaliser.dtype).mul_(scale)  # [tokens]
        ctx.save_for_backward(_form_gradients(hidden, head, targets, normaliser, weight, size))
        ctx.mark_non_differentiable(nll)
        return nll.sum() * scale, nll

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _nll: Tensor) -> tuple[Tensor | None, ...]:
        (hidden_gradient,) = ctx.saved_tensors
        return hidden_gradient * grad.to(hidden_gradient.dtype), None, None, None, None


def _token_nll(hidden: Tensor, head: SplitHead, targets: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Nats of each token and its log-normaliser, both [tokens], by a running log-sum-exp over the blocks.

    Milakov and Gimelshein 2018, arXiv 1805.02867.
    """
    normaliser = picked = None
    for block, logits in _logit_blocks(hidden, head, size):
        part = torch.logsumexp(logits, dim=-1)
        normaliser = part if normaliser is None else torch.logaddexp(normaliser, part)
        local, inside = _local(targets, block)
        hit = torch.where(inside, logits.gather(1, local.unsqueeze(1)).squeeze(1), 0)
        picked = hit if picked is None else picked + hit
    assert normaliser is not None, "an empty vocabulary"
    assert picked is not None, "an empty vocabulary"
    return (normaliser - picked).masked_fill(targets == IGNORE, 0), normaliser


def _form_gradients(
    hidden: Tensor, head: SplitHead, targets: Tensor, normaliser: Tensor, weight: Tensor, size: int
) -> Tensor:
    """Add the head's gradient to its buffers and return that of `hidden`. [tokens, d], in the dtype of hidden"""
    total = torch.zeros(hidden.shape, dtype=normaliser.dtype, device=hidden.device)
    detached = hidden.detach()
    # softmax times weight = exp(logit - shift); an ignored token has weight 0 and shift infinity
    shift = (normaliser - weight.log()).unsqueeze(1)
    for block, logits in _logit_blocks(hidden, head, size):
        local, inside = _local(targets, block)
        slope = None if head.softcap is None else 1 - (logits / head.softcap).square_()
        logits.sub_(shift)
        # the target's entry apart, in fp32: softmax - 1 cancels when the model is sure
        at_target = logits.gather(1, local.unsqueeze(1)).exp_() - (weight * inside).unsqueeze(1)
        delta = _exp_to(logits, hidden.dtype).scatter_(1, local.unsqueeze(1), at_target.to(hidden.dtype))
        if slope is not None:
            delta.mul_(slope)
        if head.factor != 1.0:
            delta.mul_(head.factor)
        if block.forms is not None:
            delta = block.forms.fold(delta, detached, total)
        add_product(total, delta, block.weight)
        if (gradient := block.gradient()) is not None:
            add_product(gradient, delta.t(), detached)
    return total.to(hidden.dtype)


def _exp_to(x: Tensor, dtype: torch.dtype) -> Tensor:
    """exp(x), computed in the dtype of x and written in another, in one pass."""
    return torch.exp(x, out=x if dtype == x.dtype else torch.empty(x.shape, dtype=dtype, device=x.device))


def _logit_blocks(hidden: Tensor, head: SplitHead, size: int) -> Iterator[tuple[Block, Tensor]]:
    """Each block with its logits in fp32. [tokens, block]"""
    for block in head.blocks(hidden.dtype, size):
        logits = product(hidden.detach(), block.weight.t())
        if block.bias is not None:
            logits += block.bias
        if block.forms is not None:
            logits = block.forms.expand(logits, hidden.detach())
        if head.factor != 1.0:
            logits *= head.factor
        if head.softcap is not None:
            logits = torch.tanh(logits / head.softcap) * head.softcap
        yield block, logits


def _local(targets: Tensor, block: Block) -> tuple[Tensor, Tensor]:
    """Place of each target inside a block (0 when it is elsewhere), and whether it is inside."""
    local = targets - block.start
    inside = (local >= 0) & (local < block.weight.shape[0])
    if block.forms is not None:
        local, inside = block.forms.local(targets, local, inside)
    return torch.where(inside, local, 0), inside
