"""Put a trained model together again for use: published weights, new rows, adapters. Needs no corpus and no lexicon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wake2vec.contract.errors import CheckpointCorrupt
from wake2vec.contract.manifest import step_of
from wake2vec.contract.order import Order
from wake2vec.contract.rundir import RunDir
from wake2vec.contract.tables import LoraTable
from wake2vec.model.load import load_published
from wake2vec.model.new_rows import install_rows
from wake2vec.phases.p2 import inject_lora
from wake2vec.use.merged_weights import Trained
from wake2vec.use.trained_weights import read_trained, require_published


@dataclass(frozen=True, kw_only=True)
class Assembled:
    model: Any  # a causal LM of transformers in eval mode
    tokenizer: Any
    first_new_id: int
    step: int


def assemble(run: RunDir, order: Order, step: int | str, device: torch.device) -> Assembled:
    """The model at a step (a number, "best" or "final") as the trainer computes with it. Raises Wake2vecError."""
    from wake2vec.phases.inputs import load_tokenizer

    table, lora = order.training.model, order.training.lora or LoraTable()
    require_published(run, order)
    trained, place = read_trained(run, order, step)
    model, _ = load_published(table, device)
    install_rows(
        model,
        first_new_id=trained.first_new_id,
        mode="shared" if trained.output_rows is None else "separate",
        input_rows=trained.input_rows,
        output_rows=trained.output_rows,
    )
    put_adapters(model, trained, lora)
    put_own_weights(model, trained)
    return Assembled(
        model=model.requires_grad_(False).eval(),
        tokenizer=load_tokenizer(str(run.vocab), None),
        first_new_id=trained.first_new_id,
        step=step_of(run.checkpoints / place) or _last_step(run),
    )


def put_adapters(model: Any, trained: Trained, table: LoraTable) -> None:
    """Inject PEFT's layers and fill them; every half must find its place, and every place its half."""
    if not trained.lora:
        return
    inject_lora(model, table)
    places = {name: parameter for name, parameter in model.named_parameters() if ".lora_" in name}
    halves: dict[str, Tensor] = {}
    for module, (a, b) in trained.lora.items():
        halves |= {f"{module}.lora_A.default.weight": a, f"{module}.lora_B.default.weight": b}
    if set(places) != set(halves):
        odd = sorted(set(places) ^ set(halves))[0]
        raise CheckpointCorrupt(odd, "the adapter does not fit the modules that the job names")
    with torch.no_grad():
        for name, parameter in places.items():
            parameter.data = halves[name].to(parameter.device, torch.float32)


def put_own_weights(model: Any, trained: Trained) -> None:
    """Weights that were trained as wholes, under the names that they are published by."""
    if not trained.own:
        return
    places = {name.replace(".base_layer.", "."): parameter for name, parameter in model.named_parameters()}
    places |= {
        name.removesuffix(".base.weight") + ".weight": parameter
        for name, parameter in places.items()
        if name.endswith(".base.weight")
    }
    with torch.no_grad():
        for name, tensor in trained.own.items():
            if name not in places:
                raise CheckpointCorrupt(name, "the model has no such weight")
            places[name].copy_(tensor)


def _last_step(run: RunDir) -> int:
    from wake2vec.contract.ledger import read_ledger

    return read_ledger(run.metrics).last_step
