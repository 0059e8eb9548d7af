"""Put a plan into effect: which way the layers take, where the base embedding lies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from wake2vec.contract.plan import Place, Plan
from wake2vec.model.layers.paths import use_layers
from wake2vec.model.new_rows import InstalledRows
from wake2vec.model.split_vocabulary import BaseRows, PlainRows


class HostRows(PlainRows):
    """Base rows in host memory: only those that are looked up cross to the device."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight.detach().cpu())
        self._staging: Tensor | None = None

    def _apply(self, fn: Any, recurse: bool = True) -> HostRows:
        return self  # stays on the host when the model is moved

    def lookup(self, ids: Tensor) -> Tensor:
        flat = ids.flatten().cpu()  # waits for the device, so the last copy out of the staging buffer has ended too
        staging = self._room(flat.numel(), pinned=ids.is_cuda)
        torch.index_select(self.weight, 0, flat, out=staging)
        return staging.to(ids.device, non_blocking=True, copy=True).view(*ids.shape, self.width)

    def logits(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, self.weight.to(hidden.device))

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
    embedding = _place_embedding(rows, plan, device)
    if not any(parameter.requires_grad for parameter in rows.everything().values()):
        _rest(rows, embedding, device)
    if embedding != plan.embedding:
        notes.append("a base embedding that trains stays on the device")
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return Placed(plan=replace(plan, layers=used.path, embedding=embedding), notes=tuple(notes))


def _place_embedding(rows: InstalledRows, plan: Plan, device: torch.device) -> Place:
    base = rows.embedding.base
    now: Place = "host" if isinstance(base, HostRows) else "device"
    if now == plan.embedding or base.trainable() is not None:
        return now
    if plan.embedding == "host":
        rows.embedding.base = HostRows(base.block(0, _height(base)))
        return "host"
    rows.embedding.base = rows.head.base if rows.was_tied else PlainRows(base.block(0, _height(base)).to(device))
    return "device"


def _rest(rows: InstalledRows, embedding: str, device: torch.device) -> None:
    """Hold new rows that train no more like the base rows beside them: on the host where only look-ups read them."""
    inside, outside = rows.embedding, rows.head
    on_host = embedding == "host"
    if inside.rows is not outside.rows:
        inside.rows.data = inside.rows.data.to("cpu" if on_host else device)
    outside.rows.data = outside.rows.data.to(device)
    inside.resting = HostRows(inside.rows) if on_host else None


def _height(base: BaseRows) -> int:
    assert isinstance(base, PlainRows), type(base).__name__
    return base.weight.shape[0]
