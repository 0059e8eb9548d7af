"""The published model as a job uses it: loaded for this device, frozen, and proven unchanged by what is built on it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wake2vec.errors import ModelError
from wake2vec.load import load_base
from wake2vec.material import Material
from wake2vec.precision import Precision

PARITY_TOKENS = 32


def load(material: Material) -> tuple[Any, torch.device, Precision]:
    """The model of the job on this machine's device, and in what numbers it is held and computed."""
    table = material.job.model
    assert table, "checked by the spec"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, report = load_base(
        table.base,
        load=table.load,
        compute=table.compute,
        device=device,
        revision=table.revision,
        trust_remote_code=table.trust_remote_code,
    )
    return model, device, report.precision


def freeze(model: Any) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def matrices(model: Any) -> tuple[Tensor, Tensor]:
    """The published input and output matrices, [V, d] each; the same tensor when the model ties them."""
    return model.get_input_embeddings().weight, model.get_output_embeddings().weight


def parity_inputs(material: Material) -> Tensor:
    """A fixed stretch of base tokens from the held-out text. [1, tokens]"""
    ids = material.windows.inputs.flatten()
    ids = ids[ids < material.id_map.first_new_id][:PARITY_TOKENS]
    return torch.from_numpy(ids.copy()).unsqueeze(0)


@torch.no_grad()
def base_logits(model: Any, material: Material) -> Tensor:
    """Logits of the base tokens on that stretch, [tokens, first_new_id], as the model gives them now."""
    model.eval()
    inputs = parity_inputs(material).to(next(model.parameters()).device)
    logits: Tensor = model(input_ids=inputs, use_cache=False).logits[0]
    return logits[:, : material.id_map.first_new_id].cpu()


def check_parity(model: Any, material: Material, before: Tensor) -> None:
    """Raise ModelError unless base tokens have the same logits, to the bit, as in the model as published (G7)."""
    after = base_logits(model, material)
    if not torch.equal(before, after):
        off = float((before.float() - after.float()).abs().max())
        raise ModelError(
            material.job.model.base if material.job.model else "model",
            f"adding the new rows moved logits of base tokens by up to {off:.3g}",
            "this is a fault of the program: please report it with the model's name",
        )
