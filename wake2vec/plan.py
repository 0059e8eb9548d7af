"""The plan: how a step is executed, never what it computes. Decides the next rung after out-of-memory. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Layers = Literal["autograd", "checkpoint", "offload", "lean"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    micro_batch: int  # blocks per forward pass
    layers: Layers = "autograd"  # what is kept for the backward pass
    embedding: Literal["device", "host"] = "device"
    head: Literal["as-is", "int8", "nf4"] = "as-is"
    block_splits: int = 1  # pieces a block is cut into; more than 1 shortens the context


def next_rung(plan: Plan, *, seq_len: int, allow_shorter_context: bool) -> Plan | None:
    """The next smaller plan after out-of-memory, or None when there is none left."""
    if plan.micro_batch > 1:
        return replace(plan, micro_batch=plan.micro_batch // 2)
    if plan.layers in ("autograd", "lean"):
        return replace(plan, layers="checkpoint")
    if plan.layers == "checkpoint":
        return replace(plan, layers="offload")
    if allow_shorter_context and seq_len // (2 * plan.block_splits) >= 8:
        return replace(plan, block_splits=2 * plan.block_splits)
    return None
