"""Output rows by regression: the body stands still, so what it says over a text is computed once and rows are fitted.

Cross-entropy of all tokens is convex in the output rows of the new words. With hidden states in coordinates in which
they have the same size in every direction, a word met n times weighs its data with about n and its start with `prior`,
so that a rare word stays near where it began.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.trials.held_out import Ints
from bench.trials.learners import hidden
from wake2vec.data.blocks import Blocks

ROUNDS = 40
_BLOCKS_AT_ONCE = 16
_TOKENS_AT_ONCE = 1 << 15
_ROWS_AT_ONCE = 8192
_RIDGE = 1e-3


@torch.no_grad()
def fit_output(model: Any, head: Any, blocks: Blocks, index: Ints, *, prior: float) -> None:
    """Fit the head's new rows in place, on one pass over the blocks of `index`."""
    states, of_base, targets = read(model, head, blocks, index)
    root, inverse = roots(states)
    states = states @ inverse  # [N, d], second moment 1
    start = head.rows.detach().float() @ root  # the same logits
    change = torch.zeros_like(start, requires_grad=True)
    places = targets - head.first_new_id
    optimizer = torch.optim.LBFGS([change], max_iter=ROUNDS, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        rows = start + change.detach()
        total = 0.5 * prior * change.detach().square().sum()
        gradient = prior * change.detach()
        for first in range(0, len(states), _TOKENS_AT_ONCE):
            part = slice(first, first + _TOKENS_AT_ONCE)
            logits = states[part] @ rows.T  # [tokens, words]
            everything = torch.logaddexp(of_base[part], logits.logsumexp(dim=1))
            is_new = places[part] >= 0
            own = places[part].clamp(min=0).unsqueeze(1)
            total = total + everything.sum() - (logits.gather(1, own).squeeze(1) * is_new).sum()
            delta = (logits - everything.unsqueeze(1)).exp_()
            delta.scatter_add_(1, own, -is_new.unsqueeze(1).to(delta.dtype))
            gradient += delta.T @ states[part]
        change.grad = gradient
        return total

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    head.rows.copy_((start + change.detach()) @ inverse)


def read(model: Any, head: Any, blocks: Blocks, index: Ints) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states [N, d], the log-sum-exp of the base tokens [N] and targets [N] of these blocks."""
    states, sums, targets = [], [], []
    device = head.rows.device
    for first in range(0, len(index), _BLOCKS_AT_ONCE):
        part = blocks.batch(index[first : first + _BLOCKS_AT_ONCE])
        inputs, wanted = (torch.from_numpy(array).to(device) for array in part)
        some = hidden(model, inputs).float() * head.factor
        total = torch.full((len(some),), -torch.inf, device=device)
        for start in range(0, head.first_new_id, _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, head.first_new_id)
            total = torch.logaddexp(total, (some @ head.base.block(start, stop).float().T).logsumexp(dim=1))
        states.append(some)
        sums.append(total)
        targets.append(wanted.flatten())
    return torch.cat(states), torch.cat(sums), torch.cat(targets)


def roots(states: Tensor) -> tuple[Tensor, Tensor]:
    """Square root of the second moment of hidden states and its inverse. [d, d]"""
    second = (states.T @ states).double() / len(states)
    second.diagonal().add_(_RIDGE * second.diagonal().mean())
    values, vectors = torch.linalg.eigh(second)
    root = (vectors * values.sqrt()) @ vectors.T
    inverse = (vectors * values.rsqrt()) @ vectors.T
    return root.to(states.dtype), inverse.to(states.dtype)
