"""P1, new-token rows: tokens per second and peak memory of ours and its peers at many micro-batches.

`python -m bench.speed.p1 --model qwen14b --cap-gib 14.56` on a GPU; without arguments the same code on a tiny shape.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wake2vec.contract.plan import LayerPath, Plan

if TYPE_CHECKING:
    from bench.speed.measure import Contender
    from bench.speed.sweep import Setup

RESULTS = Path(__file__).parents[1] / "results"
MODELS = {
    "qwen14b": "Qwen/Qwen2.5-14B",
    "llama8b": "meta-llama/Llama-3.1-8B",
    "mistral7b": "mistralai/Mistral-7B-v0.3",
    "llama1b": "meta-llama/Llama-3.2-1B",
    "tinyllama": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "tiny": "tiny",
}
# how many of the 44,990 words each tokenizer does not know
NEW_TOKENS = {
    "qwen14b": 44_223,
    "llama8b": 44_195,
    "mistral7b": 44_500,
    "llama1b": 44_195,
    "tinyllama": 44_500,
    "tiny": 300,
}
WRITTEN_OUT: tuple[LayerPath, ...] = ("lean", "checkpoint", "offload")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One size of ours."""

    micro_batch: int
    seq_len: int
    layers: LayerPath
    mode: Literal["shared", "separate", "input"] = "shared"
    embedding: Literal["device", "host"] = "host"


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
    yield Cell(micro_batch=1, seq_len=256, layers="autograd")


def main() -> None:
    options = parse(__doc__)

    from bench.speed.sweep import begin

    setup = begin(options, "P1")
    _ours(setup, options)
    if options.peers:
        _library(setup, options)
        _trainer(setup, options)


def _ours(setup: Setup, options: argparse.Namespace) -> None:
    from bench.speed.contenders import ours
    from bench.speed.sweep import planned, run

    for cell in cells(options.model, options.few):
        row, job, plan = planned(setup, cell, "p1", cell.mode)

        def make(plan: Plan = plan, cell: Cell = cell, tokens: int = row.tokens_per_step) -> Contender:
            return ours(
                setup.model,
                setup.shape,
                plan,
                mode=cell.mode,
                new=setup.new,
                tokens_per_step=tokens,
                dtype=setup.precision.dtype,
            )

        run(setup, row, make, floor=(job, plan))


def _library(setup: Setup, options: argparse.Namespace) -> None:
    """The original layout in fp16 and bf16, and the masked full matrix, until they do not fit."""
    import torch

    from bench.speed.contenders import masked_matrix, overlay
    from bench.speed.sweep import run

    half = {"overlay fp16": torch.float16, "overlay bf16": torch.bfloat16, "masked full matrix": torch.float16}
    kinds = half if setup.on_card else {"overlay": torch.float32, "masked full matrix": torch.float32}
    for name, dtype in kinds.items():
        build = masked_matrix if name.startswith("masked") else overlay
        for micro_batch, seq_len in peer_sizes(options.few):
            row = setup.peer_row(name, micro_batch, seq_len)
            accumulation = row.tokens_per_step // (micro_batch * seq_len)

            def make(build: Any = build, dtype: Any = dtype, accumulation: int = accumulation) -> Contender:
                return build(setup.model, setup.shape, new=setup.new, dtype=dtype, accumulation=accumulation)

            if run(setup, row, make).oom:
                break


def _trainer(setup: Setup, options: argparse.Namespace) -> None:
    """PEFT's trainable tokens under HF Trainer, until they do not fit."""
    import torch

    from bench.speed.contenders import trainable_tokens, with_trainer

    for micro_batch, seq_len in peer_sizes(options.few):
        row = setup.peer_row("PEFT tokens + Trainer", micro_batch, seq_len)
        try:
            adapted = trainable_tokens(setup.model, setup.shape, new=setup.new, dtype=setup.precision.dtype)
        except torch.OutOfMemoryError:
            adapted = None
        if adapted is None:
            row = replace(row, oom=True)
        else:
            stream = setup.stream(row)
            row, _ = with_trainer(
                row, adapted, stream, setup.device, dtype=setup.precision.dtype, optimizer="adafactor"
            )
        del adapted
        setup.clean()
        setup.table.add(row)
        if row.oom:
            break


def peer_sizes(few: bool) -> tuple[tuple[int, int], ...]:
    return ((1, 128),) if few else ((1, 128), (1, 256), (4, 256), (8, 256), (16, 256))


if __name__ == "__main__":
    main()
