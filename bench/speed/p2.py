"""P2, LoRA over frozen rows: tokens per second and peak memory of ours and of PEFT with HF Trainer.

`python -m bench.speed.p2 --model qwen14b --cap-gib 14.56` on a GPU; without arguments the same code on a tiny shape.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bench.speed.p1 import Cell, parse
from wake2vec.contract.plan import Plan

if TYPE_CHECKING:
    from bench.speed.measure import Contender
    from bench.speed.sweep import Setup

DROPOUT = 0.1


def cells(few: bool) -> Iterator[Cell]:
    """Each path with the places that suit it: all on the device for speed, host for room."""
    if few:
        yield Cell(micro_batch=8, seq_len=256, layers="checkpoint", embedding="device")
        yield Cell(micro_batch=8, seq_len=256, layers="offload")
        return
    for micro_batch in (4, 8, 16):
        yield Cell(micro_batch=micro_batch, seq_len=256, layers="lean")
        yield Cell(micro_batch=micro_batch, seq_len=256, layers="checkpoint", embedding="device")
        yield Cell(micro_batch=micro_batch, seq_len=256, layers="offload")
    yield Cell(micro_batch=1, seq_len=256, layers="lean")
    yield Cell(micro_batch=2, seq_len=256, layers="lean")


def main() -> None:
    options = parse(__doc__)

    from bench.speed.sweep import begin

    setup = begin(options, "P2", dropout=DROPOUT, rank=8)
    _ours(setup, options)
    if options.peers:
        _trainer(setup, options)


def _ours(setup: Setup, options: argparse.Namespace) -> None:
    from bench.speed.contenders import ours_lora
    from bench.speed.sweep import planned, run

    for cell in cells(options.few):
        row, job, plan = planned(setup, cell, "p2", "shared" if setup.shape.tied else "separate")
        made: list[Any] = []

        def make(plan: Plan = plan, tokens: int = row.tokens_per_step, made: list[Any] = made) -> Contender:
            adapted, contender = ours_lora(
                setup.model,
                setup.shape,
                plan,
                new=setup.new,
                tokens_per_step=tokens,
                dtype=setup.precision.dtype,
                dropout=DROPOUT,
            )
            made.append(adapted)
            return contender

        def unload(made: list[Any] = made) -> None:
            while made:
                made.pop().unload()

        run(setup, row, make, floor=(job, plan), after=unload)


def _trainer(setup: Setup, options: argparse.Namespace) -> None:
    """PEFT's LoRA under HF Trainer with the library's whole logits, until they do not fit."""
    from bench.material.random_models import fill_matrices
    from bench.speed.contenders import lora, with_trainer

    rows, dtype = setup.shape.tokenizer_length + setup.new, setup.precision.dtype
    for micro_batch in (4,) if options.few else (1, 2, 4, 8, 16):
        row = setup.peer_row("PEFT LoRA + Trainer", micro_batch, 256)
        fill_matrices(setup.model, rows, setup.shape.width, dtype, setup.device, tied=setup.shape.tied)
        adapted = lora(setup.model, DROPOUT)
        setup.model.enable_input_require_grads()
        row, error = with_trainer(row, adapted, setup.stream(row), setup.device, dtype=dtype, optimizer="adamw_torch")
        setup.model.disable_input_require_grads()
        adapted.unload()
        del adapted
        setup.clean()
        setup.table.add(row)
        if row.oom:
            print(f"  {error}")
            break


if __name__ == "__main__":
    main()
