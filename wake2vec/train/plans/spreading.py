"""What the cards of a job are dealt: samples of each step, or layers of a model that one card cannot hold."""

from __future__ import annotations

from itertools import product

from wake2vec.contract.budget import GIB, Workload
from wake2vec.contract.errors import ModelError, OutOfMemory
from wake2vec.contract.models.model_shapes import shape_of_config
from wake2vec.contract.plan import (
    LIBRARY,
    WRITTEN_OUT,
    WRITTEN_OUT_FAMILIES,
    Place,
    Plan,
    largest_divisor,
    micro_batches,
)
from wake2vec.contract.stages import deal_layers, needed
from wake2vec.model.bare import read_config
from wake2vec.model.device import memory_limit, this_device
from wake2vec.model.new_rows import resolve_mode
from wake2vec.model.precision import capability_of, choose_precision
from wake2vec.model.published_files import origin_of
from wake2vec.phases.inputs import JobInputs
from wake2vec.train.plans.choice import budgeted, nearest_card
from wake2vec.train.plans.search import SLACK


def spread(material: JobInputs, ranks: int) -> tuple[int, ...]:
    """Layers of each card, before any is loaded; none where each card holds them all.

    Raises OutOfMemory where the only card cannot, ModelError where there are more cards than layers.
    """
    train, lora = material.job.train, material.job.lora
    if train.cards == 1 or train.spread == "samples" or (lora is not None and lora.train == "all"):
        return ()
    device = this_device()
    limit = memory_limit(device)
    if limit is None and (ranks == 1 or train.spread == "auto"):
        return ()
    job = _before_loading(material)
    least = needed(job, Plan(micro_batch=1, layers="offload", embedding="host")).total
    fits = limit is None or least <= limit * SLACK
    if ranks == 1 and limit is not None and not fits:
        raise OutOfMemory(
            f"{job.shape.name} needs {least / GIB:.1f} GiB on one card, which has {limit / GIB:.1f}; its layers go "
            'over two equal cards: set train.spread = "layers" to have the job wait for them'
        )
    if ranks == 1 or (fits and train.spread == "auto"):
        return ()
    if ranks > job.shape.layers:
        problem = f"{ranks} cards for the {job.shape.layers} layers of {job.shape.name}"
        raise ModelError("train.cards", problem, f"give at most {job.shape.layers}")
    asked = WRITTEN_OUT if job.shape.family in WRITTEN_OUT_FAMILIES else LIBRARY
    paths = [path for path in asked if path != "offload"] if train.layers == "auto" else [train.layers]
    sizes = micro_batches(job.batch) if train.micro_batch == "auto" else [largest_divisor(job.batch, train.micro_batch)]
    places: tuple[Place, ...] = ("device", "host")
    plans = [
        Plan(micro_batch=size, layers=path, embedding=place) for size, path, place in product(sizes, paths, places)
    ]
    return deal_layers(job, plans, card=nearest_card(device), cards=ranks, limit_bytes=limit)


def _before_loading(material: JobInputs) -> Workload:
    """As the model's config has it; whether its matrices are really one is seen only in its files."""
    table, vocab = material.job.model, material.job.vocab
    config, device = read_config(origin_of(table)).to_dict(), this_device()
    shape = shape_of_config(table.base, config, tokenizer_length=material.id_map.first_new_id)
    load = choose_precision(table.load, table.compute, device=str(device), capability=capability_of(device)).load
    rows = resolve_mode(vocab.rows if vocab else "auto", tied=shape.tied)
    return budgeted(material, shape, load=load, rows=rows, row_bytes=vocab.row_bytes if vocab else 4)
