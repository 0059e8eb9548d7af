"""See that a published tensor really lies where it was put: its shape, and a sample of its values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wake2vec.contract.errors import ModelError

SAMPLE = 4096  # values that are compared, spread over the whole tensor
FURTHEST = 0.7  # of the sample's norm: NF4 is 0.09 off, up to 0.28 with heavy tails; a wrong tensor 1.4


def check_placed(name: str, published: Tensor, owner: Any, leaf: str) -> None:
    """Bit by bit where the tensor is held as it came or cast; within rounding where it is quantised."""
    placed = getattr(owner, leaf)
    quantised = type(owner).__name__ in ("Linear4bit", "Linear8bitLt") and leaf == "weight"
    found = _values(owner) if quantised else placed.detach()
    if found.shape != published.shape:
        raise ModelError(name, f"has shape {list(published.shape)}, the model wants {list(found.shape)}", REMEDY)
    step = max(1, published.numel() // SAMPLE)
    want = published.flatten()[::step].to(found.dtype)
    have = found.flatten()[::step].to(want.device)
    far = (want.float() - have.float()).norm() > FURTHEST * want.float().norm() if quantised else None
    if far or (far is None and not torch.allclose(want, have, rtol=0, atol=0, equal_nan=True)):
        raise ModelError(name, "does not lie in the model as its file has it", REMEDY)


def _values(module: Any) -> Tensor:
    """The weight of a quantised layer as it is computed with. [out, in]"""
    weight = module.weight
    if type(module).__name__ == "Linear8bitLt":
        scaled: Tensor = weight.data.float() * (weight.SCB.float() / 127).unsqueeze(1)
        return scaled
    import bitsandbytes as bnb

    found: Tensor = bnb.functional.dequantize_4bit(weight.data, weight.quant_state)
    return found


REMEDY = "this is a fault of the program: please report it with the model's name"
