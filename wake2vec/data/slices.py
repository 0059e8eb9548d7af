"""What of a step goes through the model at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Neighbouring samples of a step, or a part of each."""

    inputs: Tensor  # [b, s]
    targets: Tensor  # [b, s]
    samples: Tensor  # [b] number of each sample in the whole job
    offsets: Tensor  # [b] where in its block each sample begins


def pieces(inputs: Tensor, targets: Tensor, samples: Tensor, splits: int) -> list[Slice]:
    """One piece, or with a shortened context `splits` of them: the same targets in the same order. [b, L] each"""
    length = -(-inputs.shape[1] // splits)
    return [
        Slice(
            inputs=inputs[:, start : start + length],
            targets=targets[:, start : start + length],
            samples=samples,
            offsets=torch.full_like(samples, start),
        )
        for start in range(0, inputs.shape[1], length)
    ]
