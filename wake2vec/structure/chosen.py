"""Which pairs train and which are held out, which rows they move, and how words lie in the matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wake2vec.contract.words.groups import Pair, large_enough
from wake2vec.structure import draws

GroupWeight = Literal["pair", "sqrt", "group"]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Places of words and bases in the list of words, and the group of each pair. [p] int64 each"""

    word: Tensor
    base: Tensor
    group: Tensor

    def __len__(self) -> int:
        return len(self.word)

    def of(self, places: Tensor) -> Pairs:
        return Pairs(word=self.word[places], base=self.base[places], group=self.group[places])

    def member(self, groups: int, like: Tensor) -> Tensor:
        """[g, p] 0/1, of the type and on the device of `like`"""
        of = self.group.to(like.device)
        return (torch.arange(groups, device=like.device).unsqueeze(1) == of).to(like.dtype)

    def offsets(self, words: Tensor) -> Tensor:
        """d = e(word) - e(base). [words, d] → [p, d]"""
        return words[self.word.to(words.device)] - words[self.base.to(words.device)]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """All that the losses and the figures need of the groups; a function of files, vocabulary and seed."""

    words: tuple[str, ...]
    rows: Tensor  # [t] new rows that stand in a word, ascending
    base_ids: Tensor  # [f] published tokens that do
    points: Tensor  # [words, k] places in rows followed by base_ids, padded with the first
    shares: Tensor  # [words, k] fp32: of each point in its word, 0 for padding
    groups: tuple[str, ...]
    train: Pairs
    labels: Pairs  # the same pairs under the labels that they train by: others, in a shuffled run
    held: Pairs
    members: Tensor  # [m] places of device words in the list of words
    device: Tensor  # [m]
    apart: Tensor  # [m] bool: device words that no triplet shows
    devices: tuple[str, ...]
    left_out: dict[str, int]

    def vectors(self, points: Tensor) -> Tensor:
        """The mean of each word's points. [t + f, d] → [words, d]"""
        places, shares = self.points.to(points.device), self.shares.to(points)
        if places.shape[1] == 1:
            return points[places[:, 0]]
        return torch.einsum("wk,wkd->wd", shares, points[places])

    def weights(self, kind: GroupWeight) -> Tensor:
        """Of each training pair: pairs alike, groups alike, or between the two. [p] fp32, sum 1"""
        count = torch.bincount(self.labels.group, minlength=len(self.groups))[self.labels.group].double()
        each = count ** {"pair": 0.0, "sqrt": -0.5, "group": -1.0}[kind]
        return (each / each.sum()).float()


def choose(
    pairs: Sequence[Pair],
    members: Sequence[tuple[str, str]],
    ids: Mapping[str, Sequence[int]],
    *,
    first_new_id: int,
    seed: int,
    held_out: float = 0.2,
    devices_held_out: float = 0.0,
    min_pairs: int = 5,
    shuffle: bool = False,
    whole: bool = True,
) -> Chosen:
    """`ids`: of every word and base. Pairs are held out by the text of the base, so that more pairs move none."""
    left_out: Counter[str] = Counter()
    if whole:
        left_out["their base is cut into pieces"] = sum(len(ids[pair.base]) > 1 for pair in pairs)
        pairs = [pair for pair in pairs if len(ids[pair.base]) == 1]
    is_held = draws.of_text(seed, "held-out", [pair.base for pair in pairs]) < held_out
    held = [pair for pair, out in zip(pairs, is_held, strict=True) if out]
    train = [pair for pair, out in zip(pairs, is_held, strict=True) if not out]
    kept_still = {one for pair in held for one in _movable(pair, ids, first_new_id)}
    apart = [pair for pair in train if kept_still.isdisjoint(_movable(pair, ids, first_new_id))]
    left_out["they share a row with a pair that is held out"] = len(train) - len(apart)
    train = large_enough(apart, min_pairs)
    left_out[f"their group has fewer than {min_pairs} pairs to train"] = len(apart) - len(train)
    groups = tuple(sorted({pair.group for pair in train}))
    held = [pair for pair in held if pair.group in groups]

    paired = [text for one in (*train, *held) for text in (one.word, one.base)]
    words = tuple(dict.fromkeys([*paired, *(word for word, _ in members)]))
    place = {word: index for index, word in enumerate(words)}
    used = sorted({one for word in words for one in ids[word]})
    rows = [one - first_new_id for one in used if one >= first_new_id]
    order = [row + first_new_id for row in rows] + [one for one in used if one < first_new_id]
    column = {one: index for index, one in enumerate(order)}
    points, shares = _padded([[column[one] for one in ids[word]] for word in words])
    devices = tuple(sorted({device for _, device in members}))
    trained = _pairs(train, place, groups)
    return Chosen(
        words=words,
        rows=torch.tensor(rows, dtype=torch.int64),
        base_ids=torch.tensor([one for one in used if one < first_new_id], dtype=torch.int64),
        points=points,
        shares=shares,
        groups=groups,
        train=trained,
        labels=shuffled(trained, seed) if shuffle else trained,
        held=_pairs(held, place, groups),
        members=torch.tensor([place[word] for word, _ in members], dtype=torch.int64),
        device=torch.tensor([devices.index(device) for _, device in members], dtype=torch.int64),
        apart=torch.from_numpy(
            draws.of_text(seed, "held-out-device", [word for word, _ in members]) < devices_held_out
        ),
        devices=devices,
        left_out={reason: count for reason, count in left_out.items() if count},
    )


def shuffled(pairs: Pairs, seed: int) -> Pairs:
    """The same pairs and the same group sizes, with the groups dealt out by the seed: structure of no meaning."""
    order = torch.from_numpy(draws.permutation(seed, "shuffle", 0, len(pairs)))
    return Pairs(word=pairs.word, base=pairs.base, group=pairs.group[order])


def _movable(pair: Pair, ids: Mapping[str, Sequence[int]], first_new_id: int) -> set[int]:
    return {one for word in (pair.word, pair.base) for one in ids[word] if one >= first_new_id}


def _pairs(pairs: Sequence[Pair], place: Mapping[str, int], groups: Sequence[str]) -> Pairs:
    number = {name: index for index, name in enumerate(groups)}
    columns = [(place[pair.word], place[pair.base], number[pair.group]) for pair in pairs]
    word, base, group = torch.tensor(columns, dtype=torch.int64).reshape(-1, 3).unbind(dim=1)
    return Pairs(word=word, base=base, group=group)


def _padded(lists: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    width = max((len(one) for one in lists), default=1)
    points = torch.tensor([[*one, *[one[0]] * (width - len(one))] for one in lists], dtype=torch.int64)
    shares = torch.tensor([[1 / len(one)] * len(one) + [0.0] * (width - len(one)) for one in lists])
    return points.reshape(-1, width), shares.reshape(-1, width)


@dataclass(frozen=True, kw_only=True)
class Triplets:
    """Places in the list of words. [t] each"""

    anchor: Tensor
    positive: Tensor
    negative: Tensor


def draw_triplets(chosen: Chosen, *, seed: int, step: int, count: int, balance: bool) -> Triplets:
    """An anchor, another word of its device, a word of any other. Of devices with two words; none without a second."""
    shown = np.flatnonzero(~chosen.apart.numpy())
    device = chosen.device.numpy()[shown]
    by_device = [np.flatnonzero(device == one) for one in range(len(chosen.devices))]
    others = [np.flatnonzero(device != one) for one in range(len(chosen.devices))]
    may_anchor = [one for one, found in enumerate(by_device) if 2 <= len(found) < len(device)]
    if not may_anchor:
        nothing = torch.empty(0, dtype=torch.int64)
        return Triplets(anchor=nothing, positive=nothing, negative=nothing)
    draw = [draws.uniform(seed, f"triplet-{name}", step, count) for name in ("class", "anchor", "positive", "negative")]
    sizes = np.array([len(by_device[one]) for one in may_anchor], dtype=np.float64)
    edges = np.cumsum(np.ones_like(sizes) / len(sizes) if balance else sizes / sizes.sum())
    found = []
    for which, first, second, other in zip(*draw, strict=True):
        one = may_anchor[min(int(np.searchsorted(edges, which, side="right")), len(may_anchor) - 1)]
        mine, here = by_device[one], int(first * len(by_device[one]))
        there = int(second * (len(mine) - 1))  # of those without the anchor itself
        found.append((mine[here], mine[there + (there >= here)], others[one][int(other * len(others[one]))]))
    anchor, positive, negative = chosen.members[torch.from_numpy(shown[np.array(found)])].unbind(dim=1)
    return Triplets(anchor=anchor, positive=positive, negative=negative)
