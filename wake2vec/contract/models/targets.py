"""Which linear layers of a family get an adapter: the names that a job asks for, or what the family has instead.

The default list has Llama's names. Where a family has others, or one fused layer for several, these take their place.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from wake2vec.contract.errors import ModelError
from wake2vec.contract.tables import LoraTable

DEFAULT = tuple(LoraTable().targets)
ATTENTION = ("q_proj", "k_proj", "v_proj")
OTHER_ATTENTION = ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa")
FEED = ("gate_proj", "up_proj", "down_proj")
_FEED_OF_MIXTURES = ("w1", "w2", "w3", "input_linear", "output_linear")
_FEED_OF_TWO = ("fc1", "fc2", "c_fc", "mlp.c_proj", "dense_h_to_4h", "dense_4h_to_h", "fc_in", "fc_out")
OTHER_FEED = ("gate_up_proj", *_FEED_OF_TWO, *_FEED_OF_MIXTURES)


def has(modules: Collection[str], target: str) -> bool:
    """As PEFT reads a target: the whole name of a module, or its end."""
    return any(name == target or name.endswith(f".{target}") for name in modules)


def fitting_targets(asked: Sequence[str], modules: Collection[str], *, experts: bool = False) -> list[str]:
    """The targets for a model with these linear layers. Raises ModelError with the names that there are.

    A model with `experts` gets the attention alone of the default list: its MLPs are not linear layers.
    """
    there = [target for target in asked if has(modules, target)]
    if tuple(asked) == DEFAULT and (experts or len(there) < len(asked)):
        feed = [] if experts else [target for target in there if target in FEED]
        there = [target for target in there if target in ATTENTION]
        instead = [] if there else OTHER_ATTENTION
        more = [] if experts or {"gate_proj", "up_proj"} & set(feed) else OTHER_FEED
        there += [*feed, *(target for target in (*instead, *more) if has(modules, target))]
    elif len(there) < len(asked):
        lost = ", ".join(target for target in asked if target not in there)
        raise ModelError("lora.targets", f"the model has no {lost}", f"it has: {', '.join(ends(modules))}")
    if not there:
        raise ModelError(
            "lora.targets", "the model has none of the default ones", f"it has: {', '.join(ends(modules))}"
        )
    return there


def ends(modules: Collection[str]) -> list[str]:
    """The last names of the modules, each once."""
    return sorted({name.rpartition(".")[2] for name in modules})


def named_targets(asked: Sequence[str], modules: Collection[str]) -> list[str]:
    """The targets that put adapters on these modules alone: of those asked, else the last two of their names."""
    if all(any(has([name], target) for target in asked) for name in modules):
        return [target for target in asked if has(modules, target)]
    return sorted({".".join(name.split(".")[-2:]) for name in modules})


def has_experts(names: Collection[str]) -> bool:
    """Whether some layers of a model are many, of which each token meets a few."""
    return any("experts" in name.split(".") for name in names)
