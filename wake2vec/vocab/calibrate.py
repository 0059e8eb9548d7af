"""Start each new word at the probability that its count in the training text asks for.

A row made of base rows speaks as loudly as a base token: many of them together take far too much probability from the
base tokens, and the first hundred steps do little but push all of them down, those of rare words too far. So each
output row gets an offset before step 1 that makes its mean probability over real contexts equal its smoothed share of
the training tokens. The offset lies along the direction v in which all hidden states h of this model agree:

    v = argmin E(h·v - 1)² = C⁻¹ E(h), C = E(h hᵀ) + ridge          row' = row + b v, hence logit' = logit + b · h·v

h·v is 1 to within a few per cent in practice, so b v acts as an output bias without being one: the result is a plain
matrix that any library loads. b is found by a few rounds of b += ln(share) - ln(mean probability).
Measured in docs/quality.md.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from wake2vec.data.blocks import Blocks

SMOOTHING = 0.5  # added to each count: an unseen word gets the share of half an occurrence
CONTEXTS = 2048  # hidden states that are enough; more changes the result in the third digit
_ROUNDS = 8
_RIDGE = 1e-4
_ROWS_AT_ONCE = 4096
_CONTEXTS_AT_ONCE = 256


def calibrated(
    rows: Tensor,  # [n_new, d] fp32
    *,
    hidden: Tensor,  # [contexts, d], last hidden states of training text
    base: Tensor,  # [base tokens, d], output rows of the base tokens, without padding rows
    counts: Tensor,  # [n_new], how often each word is a target in one pass over the training text
    training_tokens: int,
    base_bias: Tensor | None = None,  # [base tokens]
) -> Tensor:
    """Rows whose mean probability over the contexts is (count + 0.5) / training_tokens. [n_new, d] fp32

    A function of its arguments alone. Heads with a soft cap on their logits are only met approximately.
    """
    hidden = hidden.to(rows.device, torch.float32)
    direction = constant_direction(hidden)  # [d]
    strength = hidden @ direction  # [contexts], near 1
    of_base = _log_sum_exp(hidden, base, base_bias)  # [contexts]
    logits = hidden @ rows.T  # [contexts, n_new]
    wanted = ((counts.to(rows.device).double() + SMOOTHING) / training_tokens).log()  # [n_new]
    offset = torch.zeros_like(wanted, dtype=torch.float32)
    for _ in range(_ROUNDS):
        offset += (wanted - _log_mean_probability(logits, strength, of_base, offset)).float()
    return rows + offset[:, None] * direction


def calibrate_head(model: Any, head: Any, blocks: Blocks, *, first_new_id: int) -> None:
    """Calibrate the new rows of an installed head in place, on evenly spread blocks of the training text.

    For the start of a job, before step 1. `head` has `rows`, `forms`, `base.block(start, stop)` and `bias`.
    """
    rows: Tensor = head.rows if head.forms is None else head.forms.whole(head.rows.detach())
    many = min(len(blocks), max(1, CONTEXTS // blocks.length))
    inputs, _ = blocks.batch([index * len(blocks) // many for index in range(many)])
    counts = blocks.occurrences(first_new_id + len(rows))[first_new_id:]
    with torch.no_grad():
        states = model.get_decoder()(input_ids=torch.from_numpy(inputs).to(rows.device), use_cache=False)
        found = calibrated(
            rows,
            hidden=states.last_hidden_state.flatten(0, 1) * head.factor,
            base=head.base.block(0, first_new_id),
            counts=torch.from_numpy(counts),
            training_tokens=len(blocks) * blocks.length,
            base_bias=None if head.bias is None else head.bias[:first_new_id],
        )
        if head.forms is None:
            rows.copy_(found)
        else:
            head.forms.shift(head.rows, found - rows)


def _log_mean_probability(logits: Tensor, strength: Tensor, of_base: Tensor, offset: Tensor) -> Tensor:
    """ln of the mean probability of each new word, a few contexts at a time. [n_new] fp64"""
    total = torch.full((logits.shape[1],), -torch.inf, dtype=torch.float64, device=logits.device)
    for start in range(0, len(logits), _CONTEXTS_AT_ONCE):
        part = slice(start, start + _CONTEXTS_AT_ONCE)
        shifted = logits[part] + strength[part, None] * offset  # [contexts, n_new]
        everything = torch.logaddexp(of_base[part], shifted.logsumexp(dim=1))
        total = torch.logaddexp(total, shifted.sub_(everything[:, None]).logsumexp(dim=0).double())
    return total - math.log(len(logits))


def constant_direction(hidden: Tensor) -> Tensor:
    """The v for which h·v is nearest to 1 over hidden states `[contexts, d]`, by least squares with a small ridge."""
    states = hidden.double()
    second = states.T @ states / len(states)  # [d, d]
    second.diagonal().add_(_RIDGE * second.diagonal().mean())
    return torch.linalg.solve(second, states.mean(0)).to(hidden.dtype)


def _log_sum_exp(hidden: Tensor, base: Tensor, bias: Tensor | None) -> Tensor:
    """Of the base tokens' logits, a few thousand tokens at a time. [contexts]"""
    total = torch.full((len(hidden),), -torch.inf, device=hidden.device)
    for start in range(0, len(base), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        logits = hidden @ base[part].to(hidden.device, torch.float32).T
        if bias is not None:
            logits += bias[part].to(hidden.device, torch.float32)
        total = torch.logaddexp(total, logits.logsumexp(dim=1))
    return total
