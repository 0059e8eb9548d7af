"""The two sides of a split vocabulary: frozen base rows beside a small matrix for the new tokens.

Ids below `first_new_id` belong to the base model. Ids from there on are the new tokens, and their rows are one
parameter `[n_new, d]`, fp32 or HeldRows, whatever padding the base matrix has at those places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wake2vec.model.forms import BlockForms, Forms
from wake2vec.model.precision import worked_in


class BaseRows(Protocol):
    """Frozen (or, when everything trains, trainable) rows of a published matrix, read in blocks."""

    width: int

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        """What `block` and `lookup` return."""

    def lookup(self, ids: Tensor) -> Tensor:
        """Rows of these ids, on the device of the ids. [...] -> [..., d]"""

    def block(self, start: int, stop: int) -> Tensor:
        """Rows start to stop, on the device of the matrix. [stop - start, d]"""

    def logits(self, hidden: Tensor) -> Tensor:
        """Product with every row that the published matrix has. [..., d] -> [..., V]"""

    def trainable(self) -> Tensor | None:
        """The parameter itself, when its gradient is wanted."""


class PlainRows(nn.Module):
    """The published matrix as it came: same dtype, same bits."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight, requires_grad=False)
        self.width = weight.shape[1]

    @property
    def device(self) -> torch.device:
        return self.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    def lookup(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight)

    def block(self, start: int, stop: int) -> Tensor:
        return self.weight.detach()[start:stop]

    def logits(self, hidden: Tensor) -> Tensor:
        # the whole published matrix in one product: other shapes may round differently, and G7 promises the same bits
        return F.linear(hidden.to(self.weight.dtype), self.weight)

    def trainable(self) -> Tensor | None:
        return self.weight if self.weight.requires_grad else None


def gradient_of(parameter: Tensor) -> Tensor:
    """The gradient buffer of a parameter, made of zeros when there is none yet."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter, dtype=worked_in(parameter))
    return parameter.grad


class _MergeNewRows(torch.autograd.Function):
    """Put the new rows in their places; in the backward pass add their gradient straight into `rows.grad`.

    Plain autograd would build a dense `[n_new, d]` matrix in every micro-batch and add it afterwards.
    """

    @staticmethod
    def forward(ctx: Any, base: Tensor, rows: Tensor, ids: Tensor, first_new_id: int, forms: Forms | None) -> Tensor:
        is_new = ids >= first_new_id  # [...]
        places = torch.where(is_new, ids - first_new_id, 0)
        row = places if forms is None else forms.row_of(places)
        new = F.embedding(row, rows.detach())  # [..., d]
        if forms is not None:
            new = new + forms.added(places)
        ctx.save_for_backward(torch.where(is_new, row + first_new_id, ids), places)
        ctx.rows, ctx.first_new_id, ctx.forms = rows, first_new_id, forms
        return torch.where(is_new.unsqueeze(-1), new.to(base.dtype), base)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        ids, places = ctx.saved_tensors
        is_new = (ids >= ctx.first_new_id).unsqueeze(-1)
        if ctx.rows.requires_grad:
            add_row_gradients(gradient_of(ctx.rows), ids, grad, ctx.first_new_id)
        if ctx.forms is not None and ctx.forms.offsets.requires_grad:
            # base tokens stand at place 0, which has no form
            ctx.forms.add_gradient(gradient_of(ctx.forms.offsets), places.flatten(), grad.flatten(0, -2))
        base = grad.masked_fill(is_new, 0) if ctx.needs_input_grad[0] else None
        return base, None, None, None, None


def add_row_gradients(total: Tensor, ids: Tensor, grad: Tensor, first_new_id: int) -> None:
    """Add the gradients at new tokens to their rows, in a fixed order and without asking the device which they are."""
    ids, grad = ids.flatten(), grad.flatten(0, -2)  # [tokens], [tokens, d]
    is_new = ids >= first_new_id
    # base tokens add a zero; spread over the rows, as many zeros on one row would queue up behind each other
    spread = torch.arange(ids.numel(), device=ids.device) % total.shape[0]
    row = torch.where(is_new, ids - first_new_id, spread)
    values = grad.to(total.dtype).masked_fill(~is_new.unsqueeze(-1), 0)
    # index_put_ sorts by row and adds one after the other; index_add_ on CUDA adds in whatever order threads arrive
    total.index_put_((row,), values, accumulate=True)


class _Side(nn.Module):
    """What both sides of a split vocabulary have."""

    def __init__(self, base: BaseRows | Tensor, first_new_id: int, rows: nn.Parameter, forms: Forms | None) -> None:
        super().__init__()
        self.base = PlainRows(base) if isinstance(base, Tensor) else base
        self.first_new_id = first_new_id
        self.rows = rows  # [n_new, d] fp32, or HeldRows; of words alone where ids share them
        self.forms = forms

    @property
    def n_ids(self) -> int:
        return self.first_new_id + (self.rows.shape[0] if self.forms is None else self.forms.n_ids)


class SplitEmbedding(_Side):
    """Input side: base rows looked up, new rows put in at ids >= first_new_id. The result has the base's dtype."""

    def __init__(
        self,
        base: BaseRows | Tensor,
        first_new_id: int,
        rows: nn.Parameter,
        *,
        scale: Tensor | None = None,
        forms: Forms | None = None,
    ) -> None:
        super().__init__(base, first_new_id, rows, forms)
        self.resting: BaseRows | None = None  # the new rows elsewhere than in `rows`, once they train no more
        self.scale = scale
        self.out_dtype: torch.dtype | None = (
            None  # fp32 where fp16 residuals would leave its range: wake2vec.model.fp16_range
        )

    num_embeddings = _Side.n_ids  # as libraries ask an embedding

    def forward(self, ids: Tensor) -> Tensor:
        base = self.base.lookup(ids.clamp(max=self.first_new_id - 1))
        merged = self._with_new_rows(base, ids) if self.rows.shape[0] else base
        merged = merged if self.scale is None else merged * self.scale.to(merged.dtype)
        return merged if self.out_dtype is None else merged.to(self.out_dtype)

    def _with_new_rows(self, base: Tensor, ids: Tensor) -> Tensor:
        if self.resting is None:
            return _MergeNewRows.apply(base, self.rows, ids, self.first_new_id, self.forms)  # type: ignore[no-untyped-call]
        new = self.resting.lookup((ids - self.first_new_id).clamp(min=0)).to(base.dtype)
        return torch.where((ids >= self.first_new_id).unsqueeze(-1), new, base)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A stretch of the output vocabulary: its first id, its rows and, when they train, the matrix they are cut from."""

    start: int
    weight: Tensor  # [block, d], in the asked dtype
    bias: Tensor | None  # [block]
    trains: Tensor | None
    cut: slice
    forms: BlockForms | None = None  # of the words whose rows these are

    def gradient(self) -> Tensor | None:
        """Where the gradient of this stretch is to be added, made when first asked for. [block, d]"""
        return None if self.trains is None else gradient_of(self.trains)[self.cut]


class SplitHead(_Side):
    """Output side: logits of base tokens, then of new tokens. Training reads `blocks`; `forward` is for generation."""

    def __init__(
        self,
        base: BaseRows | Tensor,
        first_new_id: int,
        rows: nn.Parameter,
        *,
        bias: Tensor | None = None,
        softcap: float | None = None,
        factor: float = 1.0,
        forms: Forms | None = None,
    ) -> None:
        super().__init__(base, first_new_id, rows, forms)
        self.bias = bias  # [V]: the new tokens have none
        self.softcap = softcap
        self.factor = factor  # of the logits, before the cap

    out_features = _Side.n_ids  # as libraries ask a head

    def without_new(self) -> SplitHead:
        """The same base rows and no others: the output side of the published model."""
        nothing = nn.Parameter(self.rows.detach()[:0], requires_grad=False)
        return SplitHead(
            self.base, self.first_new_id, nothing, bias=self.bias, softcap=self.softcap, factor=self.factor
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits of every token. [..., d] -> [..., first_new_id + n_new]; the caller applies factor and cap."""
        base = self.base.logits(hidden)
        if self.bias is not None:
            base = base + self.bias
        new = [F.linear(hidden, block.weight) for block in self._new_blocks(hidden.dtype, 8192)]
        if self.forms is not None:
            new = [self.forms.expand(torch.cat(new, dim=-1), hidden)]
        return torch.cat([base[..., : self.first_new_id], *new], dim=-1)

    def blocks(self, dtype: torch.dtype, size: int) -> Iterator[Block]:
        """The whole output vocabulary in stretches of at most `size` ids, none across the border of base and new."""
        trainable = self.base.trainable()
        for start, stop in spans(self.first_new_id, size):
            yield Block(
                start=start,
                weight=self.base.block(start, stop).to(dtype),
                bias=None if self.bias is None else self.bias[start:stop],
                trains=trainable,
                cut=slice(start, stop),
            )
        yield from self._new_blocks(dtype, size)

    def _new_blocks(self, dtype: torch.dtype, size: int) -> Iterator[Block]:
        rows, forms = self.rows.detach(), self.forms
        if forms is not None:
            size = max(64, size * len(rows) // forms.n_ids)  # the logits of a block stay as many
        for start, stop in spans(rows.shape[0], size):
            yield Block(
                start=self.first_new_id + start,
                weight=rows[start:stop].to(dtype),
                bias=None,
                trains=self.rows if self.rows.requires_grad else None,
                cut=slice(start, stop),
                forms=None if forms is None else forms.of_block(start, stop, self.first_new_id, dtype),
            )


def spans(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Stretches of at most `size` that cover 0 to count, all but a short last one a multiple of 64 long.

    cuBLAS has no fast kernel for an odd length: one block of 4,209 took four times as long as one of 8,192.
    """
    whole = count - count % 64
    for start in range(0, whole, size):
        yield start, min(start + size, whole)
    if whole < count:
        yield whole, count
