"""Find the fastest plan that fits a card: the budget names candidates, real passes over the longest block decide."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from wake2vec.contract.budget import Card, Workload
from wake2vec.contract.plan import (
    LIBRARY,
    WRITTEN_OUT,
    LayerPath,
    Plan,
    first_that_holds,
    largest_divisor,
    micro_batches,
)
from wake2vec.contract.stages import needed, step_time
from wake2vec.model.device import is_out_of_memory

SLACK = 1.05  # the budget is good to 5 %: what it calls slightly too large is still tried
TRIALS = 4
CPU_TOKENS = 512  # of a micro-batch on a CPU: its caches are small, and memory is no limit


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a job file fixes about its plan."""

    micro_batch: int | Literal["auto"] = "auto"
    layers: LayerPath | Literal["auto"] = "auto"
    host_embedding: bool = True  # False when the base rows train


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a plan did when it was really run."""

    plan: Plan
    tokens_per_second: float
    peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class ChosenPlan:
    """The plan that was chosen, why, and what was tried."""

    plan: Plan
    reason: Literal["fixed", "remembered", "measured", "reckoned", "cpu", "leanest"]
    trials: tuple[Trial, ...] = ()


def fit(
    job: Workload,
    wishes: Wishes,
    *,
    limit_bytes: int | None,
    card: Card,
    remembered: Mapping[str, Any],
    run: Callable[[Plan], Trial | None] | None,
    holds: Callable[[LayerPath], bool] = lambda _path: True,
    dealt: Sequence[int] = (),
) -> ChosenPlan:
    """Choose a plan. `run` makes a real pass and returns None when memory ran out; `limit_bytes` is None on a CPU.

    Without `run` the budget alone decides. `dealt`: the layers of each card, where one does not hold them all.
    A remembered plan is taken at once. Nothing measured as fitting leaves the leanest plan, for the ladder to work on.
    No plan has layers of which `holds` says that they compute something else.
    """
    if wishes.layers != "auto":
        wishes = replace(wishes, layers=first_that_holds(wishes.layers, holds))
    known = Plan.from_dict(remembered)
    if known and job.batch % known.micro_batch == 0 and _meets(known, wishes) and holds(known.layers):
        return ChosenPlan(plan=known, reason="remembered")
    if limit_bytes is None:
        return ChosenPlan(plan=_on_cpu(job, wishes), reason="cpu")
    if wishes.micro_batch != "auto" and wishes.layers != "auto":
        size = largest_divisor(job.batch, wishes.micro_batch)
        fixed = [Plan(micro_batch=size, layers=wishes.layers, embedding=place) for place in places(wishes)]
        return ChosenPlan(
            plan=next((plan for plan in fixed if _fits(job, plan, limit_bytes, dealt)), fixed[-1]), reason="fixed"
        )
    found = candidates(job, wishes, limit_bytes=limit_bytes, card=card, holds=holds, dealt=dealt)
    if run is None:
        surely = [plan for plan in found if _fits(job, plan, limit_bytes, dealt)] or found
        chosen = surely[0] if surely else _leanest(job, wishes, holds)
        return ChosenPlan(plan=chosen, reason="reckoned" if surely else "leanest")
    trials = _try(found, run, limit_bytes)
    if not trials:
        return ChosenPlan(plan=_leanest(job, wishes, holds), reason="leanest")
    best = max(trials, key=lambda trial: trial.tokens_per_second)
    return ChosenPlan(plan=best.plan, reason="measured", trials=tuple(trials))


def candidates(
    job: Workload,
    wishes: Wishes,
    *,
    limit_bytes: int,
    card: Card,
    holds: Callable[[LayerPath], bool] = lambda _path: True,
    dealt: Sequence[int] = (),
) -> list[Plan]:
    """Plans that the budget lets fit, the fastest by its reckoning first; the library's layers where no others hold."""
    sizes = (
        micro_batches(job.batch) if wishes.micro_batch == "auto" else [largest_divisor(job.batch, wishes.micro_batch)]
    )
    paths = (wishes.layers,) if wishes.layers != "auto" else tuple(filter(holds, WRITTEN_OUT)) or LIBRARY
    plans = [
        Plan(micro_batch=size, layers=path, embedding=place)
        for size in sizes
        for path in paths
        for place in places(wishes)
    ]
    fitting = [plan for plan in plans if _fits(job, plan, limit_bytes * SLACK, dealt)]
    # the embedding crosses from the host at no visible cost, so it moves only where that makes room
    return sorted(fitting, key=lambda plan: (step_time(job, plan, card, dealt).seconds, plan.embedding == "host"))


def places(wishes: Wishes) -> tuple[Literal["device", "host"], ...]:
    """Where the base embedding may lie, the better place first. A job file says nothing of it."""
    return ("device", "host") if wishes.host_embedding else ("device",)


def _fits(job: Workload, plan: Plan, limit_bytes: float, dealt: Sequence[int]) -> bool:
    return needed(job, plan, dealt).total <= limit_bytes


def _try(found: list[Plan], run: Callable[[Plan], Trial | None], limit_bytes: int) -> list[Trial]:
    """Run the best candidates. After one that does not fit, larger ones on the same path are not tried again."""
    trials: list[Trial] = []
    failed: list[Plan] = []
    for plan in found:
        if len(trials) + len(failed) >= TRIALS and trials:
            break
        if any(_is_larger(plan, other) for other in failed) or any(
            _is_same_but_place(plan, other.plan) for other in trials
        ):
            continue
        trial = run(plan)
        if trial is None or trial.peak_bytes > limit_bytes:
            failed.append(plan)
        else:
            trials.append(trial)
    return trials


def _is_larger(plan: Plan, other: Plan) -> bool:
    """Whether a plan needs at least as much memory as another, whatever the model."""
    return (
        plan.layers == other.layers
        and plan.micro_batch >= other.micro_batch
        and (plan.embedding == other.embedding or plan.embedding == "device")
    )


def _is_same_but_place(plan: Plan, other: Plan) -> bool:
    return plan.layers == other.layers and plan.micro_batch <= other.micro_batch


def _meets(plan: Plan, wishes: Wishes) -> bool:
    return wishes.micro_batch in ("auto", plan.micro_batch) and wishes.layers in ("auto", plan.layers)


def _on_cpu(job: Workload, wishes: Wishes) -> Plan:
    size = max(1, CPU_TOKENS // job.seq_len) if wishes.micro_batch == "auto" else wishes.micro_batch
    layers: LayerPath = "autograd" if wishes.layers == "auto" else wishes.layers
    return Plan(micro_batch=largest_divisor(job.batch, min(size, job.batch)), layers=layers)


def _leanest(job: Workload, wishes: Wishes, holds: Callable[[LayerPath], bool]) -> Plan:
    size = 1 if wishes.micro_batch == "auto" else largest_divisor(job.batch, wishes.micro_batch)
    layers = first_that_holds("offload", holds) if wishes.layers == "auto" else wishes.layers
    return Plan(micro_batch=size, layers=layers, embedding="host" if wishes.host_embedding else "device")


def try_plan(
    plan: Plan,
    *,
    seq_len: int,
    apply: Callable[[Plan], object],
    forward_backward: Callable[[int], object],
    device: torch.device,
) -> Trial | None:
    """One real trial on a card: two micro-batches, the second timed. None when out of memory.

    `forward_backward(micro_batch)` runs one micro-batch of the longest blocks; the caller zeroes the gradients after.
    """
    torch.cuda.empty_cache()
    try:
        apply(plan)
        forward_backward(plan.micro_batch)
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        start = time.perf_counter()
        forward_backward(plan.micro_batch)
        torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
    except RuntimeError as exc:
        if not is_out_of_memory(exc):
            raise
        seconds = 0.0
    # past the except block: its traceback held the tensors
    if not seconds:
        torch.cuda.empty_cache()
        return None
    peak = torch.cuda.max_memory_allocated(device)
    return Trial(plan=plan, tokens_per_second=plan.micro_batch * seq_len / seconds, peak_bytes=peak)
