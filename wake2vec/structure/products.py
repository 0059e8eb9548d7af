"""Inner products of offsets: made once, since permutations of them only change which are added up."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from wake2vec.structure.chosen import Chosen, Pairs


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Every two pairs of one group, a pair with itself among them: all the inner products that a group needs."""

    left: Tensor  # [e] ascending
    right: Tensor  # [e]
    group: Tensor  # [p]

    @classmethod
    def of(cls, group: Tensor) -> Cells:
        members = [torch.nonzero(group == one).flatten() for one in group.unique()]  # type: ignore[no-untyped-call]
        left = torch.cat([one.repeat_interleave(len(one)) for one in members])
        right = torch.cat([one.repeat(len(one)) for one in members])
        order = torch.argsort(left, stable=True)
        return cls(left=left[order], right=right[order], group=group)

    def leave_one_out(self, products: Tensor) -> Tensor:
        """`leave_one_out` of offsets whose inner products these are. [e] → [p]"""
        own = torch.zeros(len(self.group), dtype=products.dtype).index_add_(0, self.left, products)  # <d_i, sum>
        sums = torch.zeros(int(self.group.max()) + 1, dtype=products.dtype).index_add_(0, self.group, own)
        square = products[self.left == self.right]
        others = (sums[self.group] - 2 * own + square).clamp_min(0).sqrt()
        return (own - square) / (others * square.sqrt()).clamp_min(1e-8)


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Inner products of the points that trained pairs are made of, and how offsets are made of points."""

    gram: Tensor  # [n, n] fp64
    places: Tensor  # [p, 2, k] of each word's and each base's points in gram
    shares: Tensor  # [p, 2, k] of the points, negative for the base

    @classmethod
    def of(cls, points: Tensor, chosen: Chosen, pairs: Pairs) -> Inner:
        words = torch.stack([pairs.word, pairs.base], dim=1)  # [p, 2]
        used, places = torch.unique(chosen.points[words], return_inverse=True)
        sign = torch.tensor([1.0, -1.0], dtype=points.dtype)
        shares = chosen.shares[words].to(points) * sign[:, None]
        return cls(gram=points[used] @ points[used].T, places=places, shares=shares)

    def products(self, places: Tensor, shares: Tensor, cells: Cells) -> Tensor:
        """<d_i - m, d_j - m> of every cell, m the mean of all offsets that are made so. [p, 2, k] twice → [e]"""
        places, shares = places.flatten(1), shares.flatten(1)
        mean = torch.zeros(len(self.gram), dtype=self.gram.dtype).index_add_(0, places.flatten(), shares.flatten())
        with_mean = (shares * (self.gram @ (mean / len(places)))[places]).sum(dim=1)  # [p]
        found = with_mean.mean() - with_mean[cells.left] - with_mean[cells.right]
        for one, other in product(range(places.shape[1]), repeat=2):
            left, right = places[cells.left, one], places[cells.right, other]
            found += shares[cells.left, one] * shares[cells.right, other] * self.gram[left, right]
        return found
