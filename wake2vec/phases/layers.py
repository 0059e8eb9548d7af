"""What a card beyond the first trains where a model's layers are dealt out: some of them, and the adapters in them."""

from __future__ import annotations

from wake2vec.contract.spec import P2Spec, P3Spec
from wake2vec.model.dropout import StepKey
from wake2vec.model.layers.stage import no_rows
from wake2vec.phases.base import Prepared
from wake2vec.phases.inputs import JobInputs
from wake2vec.phases.p2 import adapters_of, read_source
from wake2vec.phases.parity import freeze, load


def prepare_layers(material: JobInputs) -> Prepared:
    """The same for every phase: rows and what P3 adds to them are the first card's."""
    job, stage, context = material.job, material.stage, StepKey()
    assert stage is not None, "called where layers are dealt out"
    model, device, precision = load(material)
    freeze(model)
    own, trains = {}, False
    if isinstance(job, P2Spec | P3Spec):
        source = read_source(material) if material.order.source else {}
        adapters = adapters_of(material, model, job.lora, context, source)
        own, trains = {name: one for name, one in adapters.items() if stage.holds(name)}, job.lora.train != "rows"
        for name, parameter in adapters.items():
            parameter.requires_grad_(trains and name in own)
    return Prepared(
        model=model,
        rows=no_rows(model.config.hidden_size, device),
        trainable=own if trains else {},
        tensors=own,
        context=context,
        device=device,
        precision=precision,
        stage=stage,
    )
