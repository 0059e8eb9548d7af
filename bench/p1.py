"""P1, new-token rows: tokens per second and peak memory of ours and its peers at many micro-batches.

`python -m bench.p1 --model qwen14b --cap-gib 14.56` on a GPU; without arguments the same code on a tiny shape.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from wake2vec.plan import LayerPath

RESULTS = Path(__file__).parent / "results"
MODELS = {
    "qwen14b": "Qwen/Qwen2.5-14B",
    "llama8b": "meta-llama/Llama-3.1-8B",
    "llama1b": "meta-llama/Llama-3.2-1B",
    "tinyllama": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "tiny": "tiny",
}
# how many of the 44,990 words each tokenizer does not know
NEW_TOKENS = {"qwen14b": 44_223, "llama8b": 44_195, "llama1b": 44_195, "tinyllama": 44_500, "tiny": 300}
WRITTEN_OUT: tuple[LayerPath, ...] = ("lean", "checkpoint", "offload")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One size of ours."""

    micro_batch: int
    seq_len: int
    layers: LayerPath
    mode: Literal["shared", "separate", "input"] = "shared"
    embedding: Literal["device", "host"] = "host"
    head: Literal["as-is", "int8", "nf4"] = "as-is"


def parser(description: str | None) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--model", default="tiny", choices=list(MODELS))
    options.add_argument("--cap-gib", type=float, default=None, help="device memory to allow, GiB; a T4 has 14.56")
    options.add_argument("--tokens", type=int, default=4096, help="tokens per step at least")
    options.add_argument("--few", action="store_true", help="a few cells only")
    options.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    options.add_argument("--out", type=Path, default=RESULTS)
    # fragmentation would otherwise count as need
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    return options


def parse(description: str | None) -> argparse.Namespace:
    return parser(description).parse_args()


def cells(model: str, few: bool) -> Iterator[Cell]:
    """Sizes of ours: the micro-batches on every path that may fit, then where matrices lie and how rows are held."""
    if few:
        yield Cell(micro_batch=16, seq_len=256, layers="offload")
        yield Cell(micro_batch=16, seq_len=256, layers="checkpoint", embedding="device")
        yield Cell(micro_batch=2, seq_len=256, layers="lean")
        return
    for micro_batch, seq_len in ((1, 128), (1, 256), (2, 256), (4, 256), (8, 256), (16, 256), (16, 512)):
        for layers in WRITTEN_OUT:
            yield Cell(micro_batch=micro_batch, seq_len=seq_len, layers=layers)
    for layers in WRITTEN_OUT[1:]:
        yield Cell(micro_batch=16, seq_len=256, layers=layers, embedding="device")
        yield Cell(micro_batch=16, seq_len=256, layers=layers, mode="separate")
    for head in ("int8", "nf4"):
        yield Cell(micro_batch=16, seq_len=256, layers="offload", head=head)
        yield Cell(micro_batch=4, seq_len=256, layers="lean", head=head)
    yield Cell(micro_batch=1, seq_len=256, layers="autograd")


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
    path = options.out / f"p1-{options.model}.json"
    table = Table(question="P1", model=shape.name, cap_gib=options.cap_gib, path=path)
    model = random_body(shape, precision, device)
    _ours(table, model, options, precision, device)
    if options.peers:
        _peers(table, model, options, precision, device)


def _ours(table: Any, model: Any, options: argparse.Namespace, precision: Any, device: Any) -> None:
    from bench.contenders import ours
    from bench.measure import FLOOR_GBS, FLOOR_TFLOPS, GIB, Row, blocks, free, measure
    from bench.random_models import TINY, clear_matrices
    from wake2vec.budget import Job, budget, work
    from wake2vec.plan import Plan
    from wake2vec.shapes import SHAPES

    shape, new = SHAPES.get(MODELS[options.model], TINY), NEW_TOKENS[options.model]
    for cell in cells(options.model, options.few):
        tokens = max(options.tokens, cell.micro_batch * cell.seq_len)
        plan = Plan(micro_batch=cell.micro_batch, layers=cell.layers, embedding=cell.embedding, head=cell.head)
        job = Job(
            shape=shape,
            phase="p1",
            load="nf4" if device.type == "cuda" else "fp32",
            new_tokens=new,
            rows=cell.mode,
            batch=tokens // cell.seq_len,
            seq_len=cell.seq_len,
        )
        row = Row(
            contender="wake2vec",
            layers=cell.layers,
            micro_batch=cell.micro_batch,
            seq_len=cell.seq_len,
            tokens_per_step=tokens,
            details=f"{cell.mode}, embed {cell.embedding}, head {cell.head}",
            predicted_gib=budget(job, plan).total / GIB,
        )
        stream = blocks(cell.micro_batch, cell.seq_len, shape.tokenizer_length + new, device)

        def make(plan: Plan = plan, cell: Cell = cell, tokens: int = tokens) -> Any:
            return ours(model, shape, plan, mode=cell.mode, new=new, tokens_per_step=tokens, dtype=precision.dtype)

        row, error = measure(row, make, stream, device)
        clear_matrices(model)
        free(device)
        if row.s_per_step and device.type == "cuda":
            floor = work(job, plan).seconds(FLOOR_TFLOPS, FLOOR_GBS)
            row = replace(row, floor_fraction=floor / row.s_per_step)
        table.add(row)
        if error:
            print(f"  {error}")


def _peers(table: Any, model: Any, options: argparse.Namespace, precision: Any, device: Any) -> None:
    import torch

    from bench.contenders import checkpointing, masked_matrix, overlay, trainable_tokens, with_trainer
    from bench.measure import Row, blocks, free, measure
    from bench.random_models import TINY, clear_matrices
    from wake2vec.layers import use_layers
    from wake2vec.shapes import SHAPES

    shape, new = SHAPES.get(MODELS[options.model], TINY), NEW_TOKENS[options.model]
    use_layers(model, "autograd")
    sizes = ((1, 128),) if options.few else ((1, 128), (1, 256), (4, 256), (8, 256), (16, 256))
    kinds = [("overlay fp16", torch.float16, overlay), ("overlay bf16", torch.bfloat16, overlay),
             ("masked full matrix", torch.float16, masked_matrix)]  # fmt: skip
    for name, dtype, build in kinds if device.type == "cuda" else kinds[1:2]:
        for micro_batch, seq_len in sizes:
            row = Row(
                contender=name,
                layers="library",
                micro_batch=micro_batch,
                seq_len=seq_len,
                tokens_per_step=options.tokens,
            )
            stream = blocks(micro_batch, seq_len, shape.tokenizer_length + new, device)
            accumulation = options.tokens // (micro_batch * seq_len)

            def make(build: Any = build, dtype: Any = dtype, accumulation: int = accumulation) -> Any:
                held = dtype if device.type == "cuda" else precision.dtype
                return build(model, shape, new=new, dtype=held, accumulation=accumulation)

            row, error = measure(row, make, stream, device)
            clear_matrices(model)
            checkpointing(model, on=False)
            free(device)
            table.add(row)
            if row.oom:
                print(f"  {error}")
                break  # larger ones do not fit either
    for micro_batch, seq_len in sizes:
        row = Row(
            contender="PEFT tokens + Trainer", layers="library", micro_batch=micro_batch, seq_len=seq_len,
            tokens_per_step=options.tokens,
        )  # fmt: skip
        stream = blocks(micro_batch, seq_len, shape.tokenizer_length + new, device)
        try:
            adapted = trainable_tokens(model, shape, new=new, dtype=precision.dtype)
        except torch.OutOfMemoryError:
            adapted = None
        if adapted is None:
            row, error = replace(row, oom=True), "while wrapping the model"
        else:
            row, error = with_trainer(row, adapted, stream, device, dtype=precision.dtype, optimizer="adafactor")
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
