"""What might make rows train better: each bends a gradient before a step or corrects what the step did."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

FEATURES = 256  # of a spelling: hashed pairs of letters
_RIDGE = 1e-2
_LETTERS = re.compile(r"[^\W\d_]{2,}")


class Lever:
    """Does nothing."""

    def bend(self, name: str, rows: Tensor, gradient: Tensor) -> None:
        """Change the gradient of a matrix of words' rows in place, before it is clipped."""

    def settle(self, name: str, rows: Tensor, before: Tensor, lr: float) -> None:
        """Correct rows in place after a step from `before`."""

    def figures(self) -> dict[str, float]:
        """What there is to say at the end."""
        return {}


class Pull(Lever):
    """Draw rows back to where they began by a share `strength` x rate of the way."""

    def __init__(self, strength: float) -> None:
        self.strength, self.starts = strength, dict[str, Tensor]()

    def settle(self, name: str, rows: Tensor, before: Tensor, lr: float) -> None:
        start = self.starts.setdefault(name, before)
        rows.lerp_(start, min(1.0, self.strength * lr))


class ByFrequency(Lever):
    """Scale the step of a row by (its count / the median count) ** power, within a tenth and ten."""

    def __init__(self, power: float, counts: Tensor) -> None:
        known = counts.float().clamp(min=1.0)
        self.factor = (known / known.median()).pow(power).clamp(0.1, 10.0).unsqueeze(1)  # [words, 1]

    def settle(self, name: str, rows: Tensor, before: Tensor, lr: float) -> None:
        rows.copy_(before + (rows - before) * self.factor)


class Spelling(Lever):
    """Rows must tell their spelling: a map from published rows to pairs of letters must hold for new rows too.

    The gradient of the squared error is given `share` of the norm of the text's.
    """

    def __init__(self, share: float, published: Tensor, tokens: Sequence[str], words: Sequence[str]) -> None:
        plain = [place for place, token in enumerate(tokens) if _LETTERS.fullmatch(token.strip())]
        rows = published[plain].float()  # [tokens, d]
        wanted = spellings([tokens[place].strip() for place in plain]).to(rows.device)
        second = rows.T @ rows
        second.diagonal().add_(_RIDGE * second.diagonal().mean())
        self.share = share
        self.map = torch.linalg.solve(second, rows.T @ wanted)  # [d, FEATURES]
        self.wanted = spellings(words).to(rows.device)

    def bend(self, name: str, rows: Tensor, gradient: Tensor) -> None:
        pull = (rows @ self.map - self.wanted) @ self.map.T
        gradient.add_(pull * (self.share * gradient.norm() / pull.norm().clamp(min=1e-30)))


def spellings(words: Sequence[str]) -> Tensor:
    """Pairs of letters of each word, its ends included, as a vector of length 1. [words, FEATURES]"""
    found = torch.zeros(len(words), FEATURES)
    for place, word in enumerate(words):
        ends = f"<{word.lower()}>"
        for pair, count in Counter(map("".join, pairwise(ends))).items():
            found[place, zlib.crc32(pair.encode()) % FEATURES] += count
    return F.normalize(found, dim=1)


class Stored(Lever):
    """Rows held in 16 bits: whatever a step changed is rounded, to the nearest or by a draw."""

    def __init__(self, dtype: torch.dtype, *, stochastic: bool, seed: int, device: Any) -> None:
        self.dtype, self.stochastic = dtype, stochastic
        self.generator = torch.Generator(device).manual_seed(seed)
        self.lost = torch.zeros((), device=device, dtype=torch.float64)  # asked to move, and did not
        self.asked = torch.zeros((), device=device, dtype=torch.float64)

    def settle(self, name: str, rows: Tensor, before: Tensor, lr: float) -> None:
        held = before.to(self.dtype).float()  # the start too is held so
        aimed = held + (rows - before)
        rounded = self._drawn(aimed) if self.stochastic else aimed.to(self.dtype).float()
        moves = aimed != held
        self.asked += moves.sum()
        self.lost += (moves & (rounded == held)).sum()
        rows.copy_(rounded)

    def _drawn(self, values: Tensor) -> Tensor:
        """The nearest value or its neighbour on the other side, so that the mean is the value."""
        near = values.to(self.dtype)
        rest = values - near.float()
        bits = near.view(torch.int16)
        away = torch.where((rest > 0) == (near.float() >= 0), 1, -1).to(torch.int16)
        neighbour = torch.where(bits & 0x7FFF == 0, bits, bits + away).view(self.dtype).float()
        gap = (neighbour - near.float()).abs()
        chance = torch.where(gap > 0, rest.abs() / gap.clamp(min=1e-30), 0)
        draw = torch.rand(values.shape, generator=self.generator, device=values.device)
        return torch.where(draw < chance, neighbour, near.float())

    def figures(self) -> dict[str, float]:
        return {"rounded_to_nothing": float(self.lost / self.asked.clamp(min=1))}
