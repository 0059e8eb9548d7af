"""See that every published tensor lies in the model as its file has it, value by value, while it is still at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wake2vec.contract.errors import ModelError
from wake2vec.model.outline import Outline
from wake2vec.model.quantise import BLOCK, Nf4Weight, is_quantised
from wake2vec.model.stored import Packed

AT_ONCE = 1 << 22  # values that are compared: what the check holds beside the model is small
# A value in 4 bits is at most half the widest step of the code away, which is 0.152 of the largest of its block; the
# scales, themselves in 8 bits, add 0.007 of the largest of the tensor, and half precision up to 0.004.
NF4_OFF, SCALES_OFF = 0.157, 0.008
REMEDY = "this is a fault of the program: please report it with the model's name"


def check_placed(name: str, published: Tensor | Packed, owner: Any, leaf: str) -> None:
    """The same bits where it is held as it came or cast, codes and scales where it came packed, else within a step.

    Raises ModelError.
    """
    if isinstance(published, Packed):
        same = _as_packed(owner.weight, published)
    else:
        quantised = leaf == "weight" and is_quantised(owner)
        found = _dequantised(owner) if quantised else getattr(owner, leaf).detach()
        wanted = published.t() if quantised and owner.was_transposed else published
        if found.shape != wanted.shape:
            raise ModelError(name, f"has shape {list(wanted.shape)}, the model wants {list(found.shape)}", REMEDY)
        same = (_near if quantised else _same)(found, wanted)
    if not same:
        raise ModelError(name, "does not lie in the model as its file has it", REMEDY)


def check_whole(model: Any, outline: Outline, holds: Callable[[str], bool] = lambda _name: True) -> None:
    """No tensor that is held lacks values, and those share theirs that the files make one. Raises ModelError."""
    every = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in every.items():
        if parameter.is_meta and holds(name):
            raise ModelError(name, "was left without values", REMEDY)
    for name, kept in outline.ties.items():
        if every[name] is not every[kept]:
            raise ModelError(name, f"does not share the values of {kept}, as its files have it", REMEDY)
    if (every[outline.inputs] is every[outline.outputs]) is not outline.tied:
        raise ModelError(outline.outputs, f"shares the values of {outline.inputs}, which its files keep apart", REMEDY)


def _same(found: Tensor, published: Tensor) -> bool:
    pairs = zip(_parts(found), _parts(published), strict=True)
    return all(torch.equal(have, want.to(have.device, have.dtype)) for have, want in pairs)


def _near(found: Tensor, published: Tensor) -> bool:
    """Within what 4 bits may be off; 8 bits are off by less."""
    largest = published.abs().max().float().to(found.device)
    for have, want in zip(_parts(found), _parts(published), strict=True):
        right, short = want.to(have.device, torch.float32), -want.numel() % BLOCK
        off = F.pad((have.float() - right).abs(), (0, short)).view(-1, BLOCK).amax(1)  # [n]
        scales = F.pad(right.abs(), (0, short)).view(-1, BLOCK).amax(1)  # [n]
        if not bool((off <= NF4_OFF * scales + SCALES_OFF * largest).all()):
            return False
    return True


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """All values in order, a stretch at a time. [AT_ONCE] each"""
    return iter(torch.split(tensor.reshape(-1), AT_ONCE))


def _as_packed(weight: Any, published: Packed) -> bool:
    """Codes, scales and what is said of them, to the bit; only the numbers that a copy is made in are the job's own."""
    held, right = weight.quant_state.as_dict(), published.stated()
    if held.keys() != right.keys() or not _same(weight.data, published.codes):
        return False
    tensors = [key for key, value in right.items() if isinstance(value, Tensor)]
    plain = held.keys() - {*tensors, "dtype", "shape"}
    shapes_agree = list(held["shape"]) == list(right["shape"])
    return (
        shapes_agree
        and all(_same(held[key], right[key]) for key in tensors)
        and all(held[key] == right[key] for key in plain)
    )


def _dequantised(module: Any) -> Tensor:
    """The weight of a quantised layer as it is computed with. [out, in]"""
    weight = module.weight
    if type(module).__name__ == "Linear8bitLt":
        scaled: Tensor = weight.data.float() * (weight.SCB.float() / 127).unsqueeze(1)
        return scaled
    return Nf4Weight(weight.data, weight.quant_state, weight.quant_state.dtype)()
