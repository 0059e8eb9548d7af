"""Put a plan into effect: which way the layers take, where the base embedding lies, how the base head is held."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from wake2vec.contract.plan import Plan
from wake2vec.model.layers.paths import use_layers
from wake2vec.model.new_rows import InstalledRows
from wake2vec.model.quantise import Int8Rows, Nf4Rows
from wake2vec.model.split_vocabulary import BaseRows, PlainRows


class HostRows(nn.Module):
    """Base rows in host memory: only those that are looked up cross to the device."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().cpu(), requires_grad=False)
        self.width = weight.shape[1]
        self._staging: Tensor | None = None

    def _apply(self, fn: Any, recurse: bool = True) -> HostRows:
        return self  # stays on the host when the model is moved

    @property
    def device(self) -> torch.device:
        return self.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    def lookup(self, ids: Tensor) -> Tensor:
        flat = ids.flatten().cpu()  # waits for the device, so the last copy out of the staging buffer has ended too
        staging = self._room(flat.numel(), pinned=ids.is_cuda)
        torch.index_select(self.weight, 0, flat, out=staging)
        return staging.to(ids.device, non_blocking=True, copy=True).view(*ids.shape, self.width)

    def block(self, start: int, stop: int) -> Tensor:
        return self.weight[start:stop]

    def logits(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, self.weight.to(hidden.device))

    def trainable(self) -> Tensor | None:
        return None

    def _room(self, tokens: int, *, pinned: bool) -> Tensor:
        if self._staging is None or self._staging.shape[0] < tokens:
            self._staging = torch.empty(tokens, self.width, dtype=self.dtype, pin_memory=pinned)
        return self._staging[:tokens]


@dataclass(frozen=True, kw_only=True)
class Placed:
    """The plan that is really in effect, and what could not be done as asked."""

    plan: Plan
    notes: tuple[str, ...] = ()


def apply_plan(model: Any, rows: InstalledRows, plan: Plan, device: torch.device) -> Placed:
    """Bring a model (plain or PEFT) with installed rows into the state that a plan asks for, from whatever it is in."""
    used = use_layers(model, plan.layers)
    notes = [used.note] if used.note else []
    head = _place_head(rows, plan, device)
    embedding = _place_embedding(rows, plan, device)
    if not any(parameter.requires_grad for parameter in rows.everything().values()):
        _rest(rows, head, embedding, device)
    if (head, embedding) != (plan.head, plan.embedding):
        notes.append("base matrices that train stay as they are, on the device")
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return Placed(plan=replace(plan, layers=used.path, head=head, embedding=embedding), notes=tuple(notes))  # type: ignore[arg-type]


def _place_head(rows: InstalledRows, plan: Plan, device: torch.device) -> str:
    head = rows.head
    now = {PlainRows: "as-is", Int8Rows: "int8", Nf4Rows: "nf4"}[type(head.base)]  # type: ignore[index]
    if now == plan.head or head.base.trainable() is not None:
        return now
    if now != "as-is":
        head.base = PlainRows(rows.published_head.to(device))  # type: ignore[union-attr]
    if plan.head == "as-is":
        rows.published_head = None
        return "as-is"
    published = head.base.block(0, _height(head.base))
    if rows.published_head is None:
        rows.published_head = published.cpu()  # the way back, and the only exact copy
    head.base = Int8Rows(published) if plan.head == "int8" else Nf4Rows(published)
    return plan.head


def _place_embedding(rows: InstalledRows, plan: Plan, device: torch.device) -> str:
    base = rows.embedding.base
    now = "host" if isinstance(base, HostRows) else "device"
    if now == plan.embedding or base.trainable() is not None:
        return now
    if plan.embedding == "host":
        rows.embedding.base = HostRows(base.block(0, _height(base)))
        return "host"
    # tied matrices are one again only while the head is as published
    shared = rows.was_tied and isinstance(rows.head.base, PlainRows)
    rows.embedding.base = rows.head.base if shared else PlainRows(base.block(0, _height(base)).to(device))
    return "device"


def _rest(rows: InstalledRows, head: str, embedding: str, device: torch.device) -> None:
    """Hold new rows that train no more like the base rows beside them; their parameters wait on the host if unused."""
    inside, outside = rows.embedding, rows.head
    if head == "as-is":
        outside.resting = None
    elif outside.resting is None:
        resting = outside.rows.to(device)
        outside.resting = Int8Rows(resting) if head == "int8" else Nf4Rows(resting)
    read_inside, read_outside = embedding == "device", head == "as-is"
    shared = inside.rows is outside.rows
    for part, is_read in ((inside, read_inside or (shared and read_outside)), (outside, read_outside)):
        if not (shared and part is outside):
            part.rows.data = part.rows.data.to(device if is_read else "cpu")
    inside.resting = HostRows(inside.rows) if not read_inside else None


def _height(base: BaseRows) -> int:
    assert isinstance(base, PlainRows | HostRows), type(base).__name__
    return base.weight.shape[0]
