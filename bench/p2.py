"""P2, LoRA over frozen rows: tokens per second and peak memory of ours and of PEFT with HF Trainer.

`python -m bench.p2 --model qwen14b --cap-gib 14.56` on a GPU; without arguments the same code on a tiny shape.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bench.p1 import MODELS, NEW_TOKENS, Cell, parse

DROPOUT = 0.1


def cells(few: bool) -> Iterator[Cell]:
    if few:
        yield Cell(micro_batch=8, seq_len=256, layers="checkpoint", embedding="device")
        yield Cell(micro_batch=8, seq_len=256, layers="offload", head="nf4")
        return
    for micro_batch in (4, 8, 16):
        yield Cell(micro_batch=micro_batch, seq_len=256, layers="lean")
        yield Cell(micro_batch=micro_batch, seq_len=256, layers="checkpoint", embedding="device")
        yield Cell(micro_batch=micro_batch, seq_len=256, layers="offload", head="nf4")
    yield Cell(micro_batch=1, seq_len=256, layers="lean")
    yield Cell(micro_batch=2, seq_len=256, layers="lean")


def main() -> None:
    options = parse(__doc__)
    import torch

    from bench.measure import Table, cap_memory
    from bench.random_models import TINY, random_body
    from wake2vec.precision import Precision, make_repeatable
    from wake2vec.shapes import SHAPES

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = Precision(load="nf4", compute="fp16" if device.type == "cuda" else "fp32")
    make_repeatable()
    cap_memory(device, options.cap_gib)
    shape = SHAPES.get(MODELS[options.model], TINY)
    path, notes = options.out / f"p2-{options.model}.json", {"dropout": DROPOUT, "rank": 8}
    table = Table(question="P2", model=shape.name, cap_gib=options.cap_gib, path=path, notes=notes)
    model = random_body(shape, precision, device)
    model.is_loaded_in_4bit = True
    _ours(table, model, options, precision, device)
    if options.peers:
        _peer(table, model, options, precision, device)


def _ours(table: Any, model: Any, options: argparse.Namespace, precision: Any, device: Any) -> None:
    from bench.contenders import ours_lora
    from bench.measure import FLOOR_GBS, FLOOR_TFLOPS, GIB, Row, blocks, free, measure
    from bench.random_models import TINY, clear_matrices
    from wake2vec.budget import Job, budget, work
    from wake2vec.layers import use_layers
    from wake2vec.plan import Plan
    from wake2vec.shapes import SHAPES

    shape, new = SHAPES.get(MODELS[options.model], TINY), NEW_TOKENS[options.model]
    for cell in cells(options.few):
        tokens = max(options.tokens, cell.micro_batch * cell.seq_len)
        plan = Plan(micro_batch=cell.micro_batch, layers=cell.layers, embedding=cell.embedding, head=cell.head)
        job = Job(
            shape=shape,
            phase="p2",
            load="nf4" if device.type == "cuda" else "fp32",
            new_tokens=new,
            rows="shared" if shape.tied else "separate",
            batch=tokens // cell.seq_len,
            seq_len=cell.seq_len,
            optimizer="adamw",
        )
        row = Row(
            contender="wake2vec",
            layers=cell.layers,
            micro_batch=cell.micro_batch,
            seq_len=cell.seq_len,
            tokens_per_step=tokens,
            details=f"embed {cell.embedding}, head {cell.head}",
            predicted_gib=budget(job, plan).total / GIB,
        )
        stream = blocks(cell.micro_batch, cell.seq_len, shape.tokenizer_length + new, device)
        made: list[Any] = []

        def make(plan: Plan = plan, tokens: int = tokens, made: list[Any] = made) -> Any:
            adapted, contender = ours_lora(
                model, shape, plan, new=new, tokens_per_step=tokens, dtype=precision.dtype, dropout=DROPOUT
            )
            made.append(adapted)
            return contender

        row, error = measure(row, make, stream, device)
        use_layers(model, "autograd")
        for adapted in made:
            adapted.unload()
        made.clear()
        clear_matrices(model)
        free(device)
        if row.s_per_step and device.type == "cuda":
            row = replace(row, floor_fraction=work(job, plan).seconds(FLOOR_TFLOPS, FLOOR_GBS) / row.s_per_step)
        table.add(row)
        if error:
            print(f"  {error}")


def _peer(table: Any, model: Any, options: argparse.Namespace, precision: Any, device: Any) -> None:
    from bench.contenders import checkpointing, lora, with_trainer
    from bench.measure import Row, blocks, free
    from bench.random_models import TINY, clear_matrices, fill_matrices
    from wake2vec.shapes import SHAPES

    shape, new = SHAPES.get(MODELS[options.model], TINY), NEW_TOKENS[options.model]
    rows = shape.tokenizer_length + new
    for micro_batch in (4,) if options.few else (1, 2, 4, 8, 16):
        row = Row(
            contender="PEFT LoRA + Trainer", layers="library", micro_batch=micro_batch, seq_len=256,
            tokens_per_step=options.tokens,
        )  # fmt: skip
        fill_matrices(model, rows, shape.width, precision.dtype, device, tied=shape.tied)
        adapted = lora(model, DROPOUT)
        model.enable_input_require_grads()
        stream = blocks(micro_batch, 256, rows, device)
        row, error = with_trainer(row, adapted, stream, device, dtype=precision.dtype, optimizer="adamw_torch")
        model.disable_input_require_grads()
        adapted.unload()
        del adapted
        clear_matrices(model)
        checkpointing(model, on=False)
        free(device)
        table.add(row)
        if row.oom:
            print(f"  {error}")
            break


if __name__ == "__main__":
    main()
