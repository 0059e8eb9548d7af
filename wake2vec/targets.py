"""Which linear layers of a family get an adapter: the names that a job asks for, or what the family has instead.

The default list has Llama's names. Where a family has others, or one fused layer for several, these take their place.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from wake2vec.errors import ModelError
from wake2vec.spec import LoraTable

DEFAULT = tuple(LoraTable().targets)
ATTENTION = ("q_proj", "k_proj", "v_proj")
FUSED_ATTENTION = ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "attn.qkv_proj")
FEED = ("gate_proj", "up_proj", "down_proj")
OTHER_FEED = (
    "gate_up_proj", "fc1", "fc2", "c_fc", "mlp.c_proj", "dense_h_to_4h", "dense_4h_to_h", "fc_in", "fc_out",
    "w1", "w2", "w3", "input_linear", "output_linear",
)  # fmt: skip


def has(modules: Collection[str], target: str) -> bool:
    """As PEFT reads a target: the whole name of a module, or its end."""
    return any(name == target or name.endswith(f".{target}") for name in modules)


def fitting_targets(asked: Sequence[str], modules: Collection[str]) -> list[str]:
    """The targets for a model with these linear layers. Raises ModelError with the names that there are."""
    there = [target for target in asked if has(modules, target)]
    if tuple(asked) == DEFAULT and len(there) < len(asked):
        instead = [] if set(there) & set(ATTENTION) else FUSED_ATTENTION
        more = [] if {"gate_proj", "up_proj"} & set(there) else OTHER_FEED
        there += [target for target in (*instead, *more) if has(modules, target)]
    elif len(there) < len(asked):
        lost = ", ".join(target for target in asked if target not in there)
        raise ModelError("lora.targets", f"the model has no {lost}", f"it has: {', '.join(ends(modules))}")
    if not there:
        raise ModelError("lora.targets", "the model has none of the default ones", f"it has: {', '.join(ends(modules))}")
    return there


def ends(modules: Collection[str]) -> list[str]:
    """The last names of the modules, each once."""
    return sorted({name.rpartition(".")[2] for name in modules})


def named_targets(asked: Sequence[str], modules: Collection[str]) -> list[str]:
    """The targets that put adapters on these modules and no others: as asked, else by the last two of their names."""
    if all(any(has([name], target) for target in asked) for name in modules):
        return list(asked)
    return sorted({".".join(name.split(".")[-2:]) for name in modules})
