"""Ids that share a row: a word in another form has the word's row and the offset of the form, R[word] + F[form].

The ids of the words come first, then those of their forms, form by form and in each in the order of the words. Logits
of a form are the words' logits and one number a token, so that no larger matrix is ever multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wake2vec.model.layers.kernels import add_product, product
from wake2vec.vocab.idmap import IdMap
from wake2vec.vocab.offsets import words_with

FORMS = ".forms"  # behind the name of the rows that offsets belong to


class Forms(nn.Module):
    """Which words have which form, and the offsets `[n_forms, d]` fp32 of one side of a model."""

    def __init__(self, n_words: int, words: Sequence[Tensor], offsets: nn.Parameter) -> None:
        """`words[k]` are the rows of the words that have form k, ascending."""
        super().__init__()
        self.n_words, self.offsets = n_words, offsets
        sizes = [len(rows) for rows in words]
        self.starts = [n_words + sum(sizes[:form]) for form in range(len(words))]  # of each form's ids
        self.n_ids = n_words + sum(sizes)
        device = offsets.device
        own = torch.arange(n_words, device=device)
        self.words = [rows.to(device) for rows in words]
        self.word_of = torch.cat([own, *self.words])  # [n_ids]
        kinds = [torch.full((size,), form + 1, device=device) for form, size in enumerate(sizes)]
        self.form_of = torch.cat([torch.zeros_like(own), *kinds])  # [n_ids] 0: the word itself
        self._parts: dict[tuple[int, int, int], tuple[Part, ...]] = {}

    def row_of(self, places: Tensor) -> Tensor:
        """Rows of the words that new ids, counted from the first, belong to. [...]"""
        return self.word_of[places]

    def added(self, places: Tensor) -> Tensor:
        """What the form of each id adds to its word's row. [...] -> [..., d]"""
        nothing = self.offsets.new_zeros(1, self.offsets.shape[1])
        return F.embedding(self.form_of[places], torch.cat([nothing, self.offsets.detach()]))

    def add_gradient(self, total: Tensor, places: Tensor, grad: Tensor) -> None:
        """Add the gradients `[tokens, d]` at new ids to those of their forms; a product, whose order is fixed."""
        kinds = F.one_hot(self.form_of[places], len(self.words) + 1)[:, 1:]  # [tokens, n_forms]
        total.addmm_(kinds.to(total.dtype).t(), grad.to(total.dtype))

    def whole(self, rows: Tensor) -> Tensor:
        """Every id's row, made whole. [n_words, d] -> [n_ids, d]"""
        places = torch.arange(self.n_ids, device=rows.device)
        return rows[self.word_of] + self.added(places)  # in fp32 where the rows are held in less

    @torch.no_grad()
    def shift(self, rows: Tensor, by: Tensor) -> None:
        """Move every id's row by `by` [n_ids, d]: words as asked, forms by the mean of what is left."""
        left = by - by[self.word_of]
        rows += by[: self.n_words]
        for form, words in enumerate(self.words):
            start = self.starts[form]
            if len(words):
                self.offsets[form] += left[start : start + len(words)].mean(0)

    def expand(self, logits: Tensor, hidden: Tensor) -> Tensor:
        """Logits of all ids from those of all words. [..., n_words] -> [..., n_ids]"""
        shift = F.linear(hidden, self.offsets.detach().to(hidden.dtype))  # [..., n_forms]
        return torch.cat(
            [logits, *(logits[..., rows] + shift[..., form, None] for form, rows in enumerate(self.words))], dim=-1
        )

    def of_block(self, start: int, stop: int, first_new_id: int, dtype: torch.dtype) -> BlockForms:
        """The forms of the words `start` to `stop`."""
        offsets = self.offsets
        return BlockForms(
            parts=self._parts_of(start, stop, first_new_id),
            width=stop - start,
            offsets=offsets.detach().to(dtype),
            trains=offsets if offsets.requires_grad else None,
        )

    def _parts_of(self, start: int, stop: int, first_new_id: int) -> tuple[Part, ...]:
        """Found once for each block: the device is asked which words are in it, and every step would wait for that."""
        key = start, stop, first_new_id
        if key not in self._parts:
            bounds = torch.tensor([start, stop], device=self.word_of.device)
            found = []
            for form, rows in enumerate(self.words):
                low, high = torch.searchsorted(rows, bounds).tolist()
                found.append(Part(start=first_new_id + self.starts[form] + low, columns=rows[low:high] - start))
            self._parts[key] = tuple(found)
        return self._parts[key]


def write_out(tensors: Mapping[str, Tensor], id_map: IdMap) -> dict[str, Tensor]:
    """Trained tensors with a row for every id, where their rows are of words and offsets of forms."""
    whole = {name: tensor for name, tensor in tensors.items() if not name.endswith(FORMS)}
    for name, offsets in tensors.items():
        if name.endswith(FORMS):
            rows = name.removesuffix(FORMS)
            forms = Forms(len(tensors[rows]), words_with(id_map), nn.Parameter(offsets, requires_grad=False))
            whole[rows] = forms.whole(tensors[rows])
    return whole


@dataclass(frozen=True, kw_only=True)
class Part:
    """The ids of one form within a block of words: the first of them, and the words' columns, each once."""

    start: int
    columns: Tensor


@dataclass(frozen=True, kw_only=True)
class BlockForms:
    """The forms of a block of `width` words, whose logits stand behind those of the words."""

    parts: tuple[Part, ...]
    width: int
    offsets: Tensor  # [n_forms, d], in the dtype of the block
    trains: nn.Parameter | None

    def expand(self, logits: Tensor, hidden: Tensor) -> Tensor:
        """[tokens, width] fp32 -> [tokens, width + ids of forms]"""
        shift = product(hidden, self.offsets.t())  # [tokens, n_forms]
        forms = [logits[:, part.columns] + shift[:, form, None] for form, part in enumerate(self.parts)]
        return torch.cat([logits, *forms], dim=1)

    def local(self, targets: Tensor, local: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """The place of each target among the expanded logits, given that among the words."""
        at = self.width
        for part in self.parts:
            place = targets - part.start
            hit = (place >= 0) & (place < len(part.columns))
            local, inside = torch.where(hit, place + at, local), inside | hit
            at += len(part.columns)
        return local, inside

    def fold(self, delta: Tensor, hidden: Tensor, total: Tensor) -> Tensor:
        """The gradient of the words' logits out of that of the expanded ones; adds what the offsets take and give."""
        words, at, sums = delta[:, : self.width].contiguous(), self.width, []
        for part in self.parts:
            own = delta[:, at : at + len(part.columns)]
            words[:, part.columns] += own  # each column once: the same bits every time
            sums.append(own.sum(dim=1, dtype=total.dtype))
            at += len(part.columns)
        shift = torch.stack(sums, dim=1).to(delta.dtype)  # [tokens, n_forms]
        add_product(total, shift, self.offsets)
        if self.trains is not None:
            if self.trains.grad is None:
                self.trains.grad = torch.zeros_like(self.trains)
            add_product(self.trains.grad, shift.t(), hidden)
        return words
