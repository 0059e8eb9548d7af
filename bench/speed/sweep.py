"""What P1 and P2 share: one model for all contenders, one row for each size, everything put back in between."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from bench.material.random_models import TINY, clear_matrices, random_body
from bench.speed.contenders import checkpointing
from bench.speed.measure import FLOOR_GBS, FLOOR_TFLOPS, GIB, Contender, Row, Table, blocks, cap_memory, free, measure
from bench.speed.p1 import MODELS, NEW_TOKENS, Cell
from wake2vec.contract.budget import RowSets, Workload, budget, work
from wake2vec.contract.models.model_shapes import SHAPES, ModelShape
from wake2vec.contract.plan import Plan
from wake2vec.model.layers.paths import use_layers
from wake2vec.model.precision import Precision, make_repeatable


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One model of random weights and the table that its contenders fill."""

    model: Any
    shape: ModelShape
    new: int
    tokens: int
    precision: Precision
    device: torch.device
    table: Table

    @property
    def on_card(self) -> bool:
        return self.device.type == "cuda"

    def stream(self, row: Row) -> Iterator[torch.Tensor]:
        """The blocks that every contender sees at this size."""
        return blocks(row.micro_batch, row.seq_len, self.shape.tokenizer_length + self.new, self.device)

    def peer_row(self, name: str, micro_batch: int, seq_len: int) -> Row:
        return Row(
            contender=name, layers="library", micro_batch=micro_batch, seq_len=seq_len, tokens_per_step=self.tokens
        )

    def clean(self) -> None:
        """Take away what a contender put into the model."""
        use_layers(self.model, "autograd")
        clear_matrices(self.model)
        checkpointing(self.model, on=False)
        free(self.device)


def begin(options: argparse.Namespace, question: str, **notes: Any) -> Setup:
    """Cap the memory and make the model."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = Precision(load="nf4", compute="fp16" if device.type == "cuda" else "fp32")
    make_repeatable()
    cap_memory(device, options.cap_gib)
    shape = SHAPES.get(MODELS[options.model], TINY)
    path = options.out / f"{question.lower()}-{options.model}.json"
    model = random_body(shape, precision, device)
    model.is_loaded_in_4bit = True  # PEFT asks
    return Setup(
        model=model,
        shape=shape,
        new=NEW_TOKENS[options.model],
        tokens=options.tokens,
        precision=precision,
        device=device,
        table=Table(question=question, model=shape.name, cap_gib=options.cap_gib, path=path, notes=notes),
    )


def planned(setup: Setup, cell: Cell, phase: Literal["p1", "p2", "p3"], rows: RowSets) -> tuple[Row, Workload, Plan]:
    """One size of ours as a row still without figures, with what the budget says."""
    tokens = max(setup.tokens, cell.micro_batch * cell.seq_len)
    plan = Plan(micro_batch=cell.micro_batch, layers=cell.layers, embedding=cell.embedding)
    job = Workload(
        shape=setup.shape,
        phase=phase,
        load="nf4",
        new_tokens=setup.new,
        rows=rows,
        batch=tokens // cell.seq_len,
        seq_len=cell.seq_len,
        optimizer="adafactor" if phase == "p1" else "adamw",
    )
    places = f"embed {cell.embedding}, head as-is"
    row = Row(
        contender="wake2vec",
        layers=cell.layers,
        micro_batch=cell.micro_batch,
        seq_len=cell.seq_len,
        tokens_per_step=tokens,
        details=f"{cell.mode}, {places}" if phase != "p2" else places,
        predicted_gib=budget(job, plan).total / GIB if setup.on_card else None,
    )
    return row, job, plan


def run(
    setup: Setup,
    row: Row,
    make: Callable[[], Contender],
    *,
    floor: tuple[Workload, Plan] | None = None,
    after: Callable[[], object] = lambda: None,
) -> Row:
    """Measure one contender at one size, clean up and add the row to the table."""
    row, error = measure(row, make, setup.stream(row), setup.device)
    after()
    setup.clean()
    if floor is not None and row.s_per_step and setup.on_card:
        row = replace(row, floor_fraction=work(*floor).seconds(FLOOR_TFLOPS, FLOOR_GBS) / row.s_per_step)
    setup.table.add(row)
    if error:
        print(f"  {error}")
    return row
