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

from wake2vec.model.dropout import salt_of
from wake2vec.model.precision import rounded

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
    """Rows held in 16 bits: whatever a step changed is rounded, to the nearest or, in bf16, by a job's own draw."""

    def __init__(self, dtype: torch.dtype, *, drawn: bool, seed: int, device: Any) -> None:
        self.dtype, self.drawn, self.seed, self.step = dtype, drawn, seed, 0
        self.lost = torch.zeros((), device=device, dtype=torch.float64)  # asked to move, and did not
        self.asked = torch.zeros((), device=device, dtype=torch.float64)

    def settle(self, name: str, rows: Tensor, before: Tensor, lr: float) -> None:
        held = before.to(self.dtype).float()  # the start too is held so
        aimed = held + (rows - before)
        self.step += 1
        salt = salt_of(self.seed, self.step, name)
        found = rounded(aimed, self.dtype, first_row=0, salt=salt) if self.drawn else aimed.to(self.dtype)
        moves = aimed != held
        self.asked += moves.sum()
        self.lost += (moves & (found == held)).sum()
        rows.copy_(found)

    def figures(self) -> dict[str, float]:
        return {"rounded_to_nothing": float(self.lost / self.asked.clamp(min=1))}
