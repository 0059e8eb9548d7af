"""How a step is executed, never what it computes: the plan, and the ladder to leaner ones. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

LayerPath = Literal["lean", "checkpoint", "offload", "recompute", "autograd"]
WRITTEN_OUT: tuple[LayerPath, ...] = ("lean", "checkpoint", "offload")
LIBRARY: tuple[LayerPath, ...] = ("autograd", "recompute")
# Families whose layers are written out here, for estimates alone: of what runs, the twin and the proof decide.
WRITTEN_OUT_FAMILIES = frozenset(
    {"llama", "qwen2", "qwen3", "mistral", "phi3", "ministral", "cwm", "smollm3", "internlm3", "iquestcoder"}
)
LEANER: dict[LayerPath, tuple[LayerPath, ...]] = {  # what keeps less than a path does, the first to be tried first
    "lean": ("checkpoint", "offload", "recompute"),
    "autograd": ("checkpoint", "offload", "recompute"),
    "checkpoint": ("offload",),
}
LEANER_ACTIONS: dict[LayerPath, str] = {
    "checkpoint": "layers recomputed instead of kept",
    "offload": "checkpoints kept on the host",
    "recompute": "the library's layers recomputed instead of kept",
}
Place = Literal["device", "host"]
LAYERS = "layers"  # the ledger's event: a layer path was not taken, since it computes something else
Failure = Literal["oom", "oom_after_defragmenting", "oom_in_optimizer"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One way to execute a step of a job.

    `layers`: what is kept for the backward pass. Written out here, lean: what non-linearities need (no layer is run
    again); checkpoint: a layer's input; offload: the same, on the host. The library's own, autograd: whatever PyTorch
    keeps; recompute: a layer's input.
    """

    micro_batch: int  # blocks in one forward pass; a divisor of the batch
    layers: LayerPath = "checkpoint"
    embedding: Place = "device"
    block_splits: int = 1  # parts that each block is cut into, in place: 1 = whole blocks

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Plan | None:
        """The plan in a remembered table; None when there is none or it is of another version."""
        known = {key: value for key, value in table.items() if (key, value) != ("head", "as-is")}  # written by 0.1.0
        if set(known) != {field.name for field in fields(cls)}:
            return None
        return cls(**known)

    def __str__(self) -> str:
        text = f"{self.micro_batch} blocks at a time, {self.layers}"
        text += ", embedding on the host" if self.embedding == "host" else ""
        return text + (f", blocks cut in {self.block_splits}" if self.block_splits > 1 else "")


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What a job and its model let the ladder do."""

    batch: int
    seq_len: int
    shorter_context: bool = True
    host_embedding: bool = True  # False when the base rows train
    smallest_context: int = 32
    holds: Callable[[LayerPath], bool] = lambda _path: True  # whether a path computes what the library does


@dataclass(frozen=True, kw_only=True)
class Rung:
    """The next thing to try after a failure."""

    plan: Plan
    action: str  # in words, for the log
    changes_context: bool = False


def next_rung(plan: Plan, failure: Failure, allowed: Allowed) -> Rung | None:
    """The next leaner way to execute the same step, or None when none is left.

    Same plan once after defragmenting, then half the micro-batch, then recomputation and offload, then the
    embedding, and last, if allowed, blocks cut in place.
    """
    if failure == "oom":
        return Rung(plan=plan, action="the same plan once more, after freeing and defragmenting")
    if plan.micro_batch > 1:
        half = largest_divisor(allowed.batch, plan.micro_batch // 2)
        return Rung(plan=replace(plan, micro_batch=half), action=f"micro-batch {plan.micro_batch} to {half}")
    path = next(filter(allowed.holds, LEANER.get(plan.layers, ())), None)
    if path is not None:
        return Rung(plan=replace(plan, layers=path), action=LEANER_ACTIONS[path])
    if plan.embedding == "device" and allowed.host_embedding:
        return Rung(plan=replace(plan, embedding="host"), action="base embedding moved to the host")
    splits = plan.block_splits * 2
    if allowed.shorter_context and allowed.seq_len // splits >= allowed.smallest_context:
        action = f"blocks of {allowed.seq_len} cut in {splits}: context {allowed.seq_len // splits}"
        return Rung(plan=replace(plan, block_splits=splits), action=action, changes_context=True)
    return None


def grow(plan: Plan, ceiling: Plan, *, clean_steps: int, free_share: float, batch: int) -> Plan | None:
    """One rung back towards `ceiling`, after 200 clean steps with at least 20 % of the card free; else None.

    Context first, since only it changes what is learnt; then the reverse of the ladder.
    """
    if clean_steps < 200 or free_share < 0.2 or plan == ceiling:
        return None
    if plan.block_splits > ceiling.block_splits:
        return replace(plan, block_splits=plan.block_splits // 2)
    for field in ("embedding", "layers"):
        if getattr(plan, field) != getattr(ceiling, field):
            return replace(plan, **{field: getattr(ceiling, field)})
    if plan.micro_batch < ceiling.micro_batch:
        return replace(plan, micro_batch=min(smallest_divisor(batch, plan.micro_batch * 2), ceiling.micro_batch))
    return None


def first_that_holds(path: LayerPath, holds: Callable[[LayerPath], bool]) -> LayerPath:
    """The path itself, or the next that may stand in for it, at last the library's own layers recomputed."""
    if path not in WRITTEN_OUT:
        return path
    later = WRITTEN_OUT[WRITTEN_OUT.index(path) :]
    return next(filter(holds, later), "recompute")


def largest_divisor(batch: int, at_most: int) -> int:
    """The largest divisor of the batch that is not above a limit."""
    return next(size for size in range(max(1, at_most), 0, -1) if batch % size == 0)


def smallest_divisor(batch: int, at_least: int) -> int:
    """The smallest divisor of the batch that is not below a limit; the batch itself past that."""
    return next((size for size in range(at_least, batch) if batch % size == 0), batch)


def micro_batches(batch: int) -> list[int]:
    """Candidate micro-batches: powers of two that divide the batch, and the batch itself; largest first."""
    powers = {1 << power for power in range(batch.bit_length()) if batch % (1 << power) == 0}
    return sorted(powers | {batch}, reverse=True)
