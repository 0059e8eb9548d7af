"""Choose the plan of an attempt on this card: what the job fixes, what is remembered, else what real trials show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from wake2vec.contract import budget
from wake2vec.contract.models.model_shapes import ModelShape, shape_of_config
from wake2vec.contract.plan import Plan
from wake2vec.contract.tables import LoraTable
from wake2vec.model.device import card_name, memory_limit
from wake2vec.model.dropout import drop_only_keyed
from wake2vec.model.fp16_range import guard_range
from wake2vec.model.loss import blocked_cross_entropy
from wake2vec.model.placement import apply_plan
from wake2vec.phases.base import Prepared
from wake2vec.phases.inputs import JobInputs
from wake2vec.train.plans.oom_ladder import base_rows_rest
from wake2vec.train.plans.proven import Proven
from wake2vec.train.plans.search import Trial, Wishes, fit, try_plan

GUARDED_BLOCKS = 4


def choose_plan(
    material: JobInputs, prepared: Prepared, kept: Plan | None, proven: Proven, beat: Callable[[], None], ranks: int = 1
) -> Plan:
    """`kept` is the plan of the checkpoint; what the runner remembers of this card (a limit it met) outranks it."""
    train = material.job.train
    remembered = material.order.plan or (kept.to_dict() if kept else {})
    dealt = prepared.stage.dealt if prepared.stage is not None else ()
    fitted = fit(
        as_budgeted(material, prepared, ranks),
        Wishes(micro_batch=train.micro_batch, layers=train.layers, host_embedding=base_rows_rest(prepared)),
        limit_bytes=memory_limit(prepared.device),
        card=nearest_card(prepared.device),
        remembered=remembered,
        # layers on several cards would have to be tried together: there the budget chooses
        run=None if dealt else lambda plan: trial(material, prepared, plan, beat),
        holds=proven.holds,
        dealt=dealt,
    )
    return fitted.plan


def guard(material: JobInputs, prepared: Prepared, say: Callable[[str], None]) -> None:
    """Before anything trains in fp16, see on some blocks that it is wide enough. Raises ModelError if nothing helps.

    The same blocks and the same published weights each time, so a resumed attempt comes to the same answer.
    """
    if prepared.precision.compute != "fp16":
        return
    inputs, _ = material.blocks.batch(list(range(min(GUARDED_BLOCKS, len(material.blocks)))))
    more = list if prepared.stage is None else prepared.stage.largest
    check = guard_range(prepared.model, prepared.rows, torch.from_numpy(inputs).to(prepared.device), more=more)
    if check.remedy:
        say(check.remedy)


def as_budgeted(material: JobInputs, prepared: Prepared, ranks: int = 1) -> budget.Workload:
    """What one card has to do, where several share each step."""
    config, rows = prepared.model.config.to_dict(), prepared.rows
    shape = shape_of_config(material.job.model.base, config, tokenizer_length=material.id_map.first_new_id)
    # the config in memory counts the new tokens and is untied: what is held is what was published
    shape = replace(shape, matrix_rows=rows.published_rows, tied=rows.was_tied)
    held, size = prepared.precision.load, rows.held_in.itemsize
    return budgeted(material, shape, load=held, rows=rows.mode, row_bytes=size, ranks=ranks)


def budgeted(
    material: JobInputs, shape: ModelShape, *, load: budget.Load, rows: budget.RowSets, row_bytes: int, ranks: int = 1
) -> budget.Workload:
    job, lora = material.job, material.job.lora or LoraTable()
    return budget.Workload(
        shape=shape,
        phase=budget.trained_by(job),
        load=load,
        new_tokens=material.id_map.n_new,
        rows=rows,
        row_bytes=row_bytes,
        batch=-(-job.train.batch // ranks),
        seq_len=job.data.seq_len,
        optimizer=job.train.optimizer,
        rank=lora.r,
        targets=tuple(lora.targets),
    )


def trial(material: JobInputs, prepared: Prepared, plan: Plan, beat: Callable[[], None]) -> Trial | None:
    """Really run a plan; the gradients it leaves are dropped."""
    beat()
    result = try_plan(
        plan,
        seq_len=material.blocks.length,
        apply=lambda plan: apply_plan(prepared.model, prepared.rows, plan, prepared.device),
        forward_backward=lambda size: forward_backward(material, prepared, size),
        device=prepared.device,
    )
    for parameter in prepared.trainable.values():
        parameter.grad = None
    return result


def forward_backward(material: JobInputs, prepared: Prepared, micro_batch: int) -> None:
    """One micro-batch as a step would run it. Blocks are all of one length, so the first are as long as any."""
    indices = [index % len(material.blocks) for index in range(micro_batch)]
    inputs, targets = (torch.from_numpy(part).to(prepared.device) for part in material.blocks.batch(indices))
    drop_only_keyed(prepared.model)
    prepared.context.set(step=0, sample_ids=torch.arange(micro_batch, device=prepared.device))
    hidden = prepared.hidden(inputs).flatten(0, 1)
    loss = blocked_cross_entropy(hidden, prepared.rows.head, targets.flatten(), scale=1.0 / targets.numel())
    loss.scaled.backward()  # type: ignore[no-untyped-call]


def nearest_card(device: torch.device) -> budget.Card:
    """The known card named in the device; for a stranger the smallest, since only the order of trials hangs on it."""
    name = card_name(device).lower().replace(" ", "-")
    return next((card for key, card in sorted(budget.CARDS.items(), reverse=True) if key in name), budget.CARDS["t4"])
