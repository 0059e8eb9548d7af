"""Whether a step moves what it should: signs that neither a falling loss nor the norm of a gradient gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wake2vec.contract.errors import NothingTrains
from wake2vec.model.forms import FORMS
from wake2vec.model.new_rows import InstalledRows


@torch.no_grad()
def moving_rows(rows: InstalledRows) -> float | None:
    """Share of the new rows that have a gradient, over all matrices that train; None where no row does.

    0 means that nothing is learnt. With update = "seen" it grows from the first words met to all of the text's.
    """
    found = [
        row.grad
        for name, row in rows.trainable().items()
        if row.requires_grad and row.grad is not None and len(row) and not name.endswith(FORMS)
    ]
    if not found:
        return None
    # the largest entry of a row needs no copy of the gradient, unlike a comparison of all of them with 0
    moving = [(torch.linalg.vector_norm(grad, ord=torch.inf, dim=1) > 0).float().mean() for grad in found]
    return float(torch.stack(moving).mean())


@torch.no_grad()
def lora_norms(trainable: Mapping[str, Tensor]) -> dict[str, float]:
    """Norm of each LoRA B matrix."""
    found = {name: torch.linalg.vector_norm(tensor) for name, tensor in trainable.items() if "lora_B" in name}
    return dict(zip(found, torch.stack([*found.values()]).tolist(), strict=True)) if found else {}


def lora_norm(norms: Sequence[float]) -> float | None:
    """Of all these matrices together: 0 at the start, and as long as the adapters change nothing; None without any."""
    return float(torch.linalg.vector_norm(torch.tensor(norms))) if norms else None


def require_movement(rows: Sequence[Mapping[str, Any]], *signs: str) -> None:
    """Raises NothingTrains where one of these figures was 0 in every step of the ledger."""
    steps = [row for row in rows if row["kind"] == "step"]
    for sign in signs:
        if steps and all(row.get(sign) == 0 for row in steps):
            said = "the gradient was exactly 0" if sign == "grad_norm" else "nothing moved"
            raise NothingTrains(f"{said} in each of {len(steps):,} steps")
