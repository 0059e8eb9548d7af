"""What a job will need of a card before either is spent: the fastest plan that fits, its memory and its time. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from wake2vec.contract.budget import GIB, Budget, Card, budget, exchange_seconds, trained_by, work
from wake2vec.contract.budget import Workload as Load
from wake2vec.contract.models.model_shapes import ModelShape
from wake2vec.contract.plan import LIBRARY, WRITTEN_OUT, WRITTEN_OUT_FAMILIES, Plan, micro_batches
from wake2vec.contract.spec import TrainingSpec
from wake2vec.contract.stages import deal_layers, needed, step_time
from wake2vec.contract.tables import LoraTable

CONTEXT_SPLITS = (1, 2, 4)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """One way to run a job on a card. Times are floors: no overlap is counted, and nothing but the work itself."""

    plan: Plan
    parts: Budget
    card: Card
    step_seconds: float
    steps: int | None
    cards: int = 1
    exchange_seconds: float = 0.0  # of a step, to add up the gradients of several cards, or for hidden states
    layers: tuple[int, ...] = ()  # of each card, where none holds all
    waiting: float = 0.0  # share of the cards' time, where each waits for what another has to do first

    @property
    def needed_gib(self) -> float:
        return self.parts.total / GIB + self.card.overhead_gib

    @property
    def fits(self) -> bool:
        return self.needed_gib <= self.card.memory_gib

    @property
    def hours(self) -> float | None:
        return None if self.steps is None else self.steps * self.step_seconds / 3600


def load_of(spec: TrainingSpec, shape: ModelShape, new_words: int, row_bytes: int = 4) -> Load:
    """The job as the budget wants it: what `auto` means on a GPU is resolved. `row_bytes`: of one number of a row."""
    asked, lora = spec.vocab.rows if spec.vocab is not None else "auto", spec.lora or LoraTable()
    tied_or_not = "shared" if shape.tied else "separate"
    return Load(
        shape=shape,
        phase=trained_by(spec),
        load="nf4" if spec.model.load == "auto" else spec.model.load,
        new_tokens=new_words,
        rows=tied_or_not if asked == "auto" else asked,  # type: ignore[arg-type]
        row_bytes=row_bytes,
        batch=spec.train.batch,
        seq_len=spec.data.seq_len,
        optimizer=spec.train.optimizer,
        rank=lora.r,
        targets=tuple(lora.targets),
    )


def checkpoint_bytes(spec: TrainingSpec, shape: ModelShape, new_words: int, row_bytes: int = 4) -> int | None:
    """A checkpoint of the job in the store: what trains, and the optimizer's state in fp32. None where all trains."""
    if spec.lora and spec.lora.train == "all":
        return None
    load = load_of(spec, shape, new_words, row_bytes)
    row_sets = load.trained_row_sets
    rows = row_sets * new_words * shape.width
    trained = row_bytes * rows + 4 * load.adapter_weights
    if load.optimizer == "adamw":
        return trained + 8 * (rows + load.adapter_weights)
    return trained + 4 * (row_sets * (new_words + shape.width) + load.adapter_weights // max(1, load.rank))


def forecast(spec: TrainingSpec, load: Load, card: Card, cards: int = 1) -> Forecast:
    """The fastest plan that fits and leaves the context whole; else the one that needs least. Each card has it all."""
    load, exchange = replace(load, batch=-(-load.batch // cards)), exchange_seconds(load, card, cards)
    found = [
        Forecast(
            plan=plan,
            parts=budget(load, plan),
            card=card,
            step_seconds=work(load, plan).seconds(card.half_tflops, card.bandwidth_gbs) + exchange,
            steps=spec.train.steps,
            cards=cards,
            exchange_seconds=exchange,
        )
        for plan in _candidates(spec, load)
    ]
    return _best(found)


def forecast_layers(spec: TrainingSpec, load: Load, card: Card, cards: int) -> Forecast:
    """The same where each card holds some of the layers; `parts` are of the card that needs most."""
    plans = [plan for plan in _candidates(spec, load) if plan.layers != "offload"]
    limit = (card.memory_gib - card.overhead_gib) * GIB
    whole = [plan for plan in plans if plan.block_splits == 1]
    layers = deal_layers(load, whole, card=card, cards=cards, limit_bytes=limit)
    timed = [(plan, step_time(load, plan, card, layers)) for plan in plans]
    return _best(
        [
            Forecast(
                plan=plan,
                parts=needed(load, plan, layers),
                card=card,
                step_seconds=time.seconds,
                steps=spec.train.steps,
                cards=cards,
                exchange_seconds=time.link,
                layers=layers,
                waiting=time.waiting,
            )
            for plan, time in timed
        ]
    )


def _best(found: Sequence[Forecast]) -> Forecast:
    fitting = [one for one in found if one.fits]
    if not fitting:
        return min(found, key=lambda one: one.needed_gib)
    return min(fitting, key=lambda one: (one.plan.block_splits, one.step_seconds, one.needed_gib))


def _candidates(spec: TrainingSpec, load: Load) -> Iterator[Plan]:
    asked, path = spec.train.micro_batch, spec.train.layers
    sizes = micro_batches(load.batch) if asked == "auto" else [min(asked, load.batch)]
    auto = WRITTEN_OUT if load.shape.family in WRITTEN_OUT_FAMILIES else LIBRARY
    layers = auto if path == "auto" else (path,)
    splits = CONTEXT_SPLITS if spec.train.allow_shorter_context else (1,)
    for size, layer, place, split in itertools.product(sizes, layers, ("device", "host"), splits):
        yield Plan(micro_batch=size, layers=layer, embedding=place, block_splits=split)  # type: ignore[arg-type]
