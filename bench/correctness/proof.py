"""What the proof of the layer paths costs and finds: seconds, memory and distances, one table, for each precision.

`python -m bench.correctness.proof --model qwen14b` on a GPU: the real shape, random weights in NF4, P1 and with
adapters. `--keep N` takes that many layers; without a card a tiny model shows that it runs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from bench.material.random_models import TINY, fill_matrices, random_body
from bench.speed.measure import free, setting, synchronise
from bench.speed.p1 import MODELS, parser
from wake2vec.contract.models.model_shapes import SHAPES, ModelShape
from wake2vec.contract.plan import WRITTEN_OUT, LayerPath
from wake2vec.contract.tables import LoraTable
from wake2vec.model.dropout import StepKey
from wake2vec.model.layers.paths import use_layers
from wake2vec.model.layers.proof import MARGIN, TOKENS, prove, refer
from wake2vec.model.precision import Compute, Precision, make_repeatable
from wake2vec.phases.p2 import add_lora

LORA = LoraTable(r=8, alpha=16, dropout=0.05)
HEAD = ("precision", "phase", "what", "seconds", "extra GiB", "of the bound", "where nearest, or first beyond")


def measured(device: torch.device, action: Callable[[], Any]) -> tuple[Any, float, float]:
    """What an action gave, its seconds, and the memory that it took at most beyond what was held, in GiB."""
    free(device)
    synchronise(device)
    held = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    found = action()
    synchronise(device)
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return found, seconds, (peak - held) / (1 << 30)


def model_of(shape: ModelShape, compute: Compute, device: torch.device) -> Any:
    precision = Precision(load="nf4", compute=compute)
    model = random_body(shape, precision, device)
    fill_matrices(model, shape.matrix_rows, shape.width, precision.dtype, device, tied=False)
    model.is_loaded_in_4bit = True  # PEFT asks
    return model


def rows_of(model: Any, compute: Compute, phase: str, device: torch.device) -> list[dict[str, Any]]:
    dtype = Precision(load="nf4", compute=compute).dtype
    ids = torch.randint(0, model.config.vocab_size, (1, TOKENS), generator=torch.Generator().manual_seed(4)).to(device)
    right, seconds, extra = measured(device, lambda: refer(model, ids, dtype))
    rows = [{"what": "the library, twice", "seconds": seconds, "extra": extra}]
    lean: LayerPath = "lean"
    for path in WRITTEN_OUT:
        _, seconds, _ = measured(device, lambda path=path: use_layers(model, path))  # type: ignore[misc]
        if path == lean:
            rows.append({"what": "twins", "seconds": seconds})
        proof, seconds, extra = measured(device, lambda path=path: prove(model, path, right))  # type: ignore[misc]
        share = proof.apart / proof.bound
        rows.append({"what": path, "seconds": seconds, "extra": extra, "share": share, "where": str(proof)})
    use_layers(model, "autograd")
    return [{"precision": compute, "phase": phase, **row} for row in rows]


def line(row: dict[str, Any]) -> str:
    cells = [row["precision"], row["phase"], row["what"], f"{row['seconds']:.2f}"]
    cells.append(f"{row['extra']:.2f}" if "extra" in row else "")
    cells += [f"{row['share']:.2f}" if "share" in row else "", row.get("where", "")]
    return "| " + " | ".join(cells) + " |"


def options_of() -> argparse.Namespace:
    chosen = parser(__doc__)
    chosen.add_argument("--keep", type=int, default=0, help="layers, all by default")
    return chosen.parse_args()


def main() -> None:
    options = options_of()
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    make_repeatable()
    shape = SHAPES.get(MODELS[options.model], TINY) if device.type == "cuda" else TINY
    shape = replace(shape, layers=options.keep or shape.layers)
    print(f"{shape.name}, {shape.layers} layers, {TOKENS} tokens, bound {MARGIN} times one unit in the last place")
    print("| " + " | ".join(HEAD) + " |\n" + "| --- " * len(HEAD) + "|")
    table: list[dict[str, Any]] = []
    precisions: tuple[Compute, ...] = ("fp16", "bf16") if device.type == "cuda" else ("fp32",)
    for compute in precisions:
        model, context = model_of(shape, compute, device), StepKey()
        for phase in ("p1", "p2"):
            if phase == "p2":
                add_lora(model, LORA, context, seed=1)
                context.set(step=0, sample_ids=torch.zeros(1, dtype=torch.int64, device=device))
            for row in rows_of(model, compute, phase, device):
                table.append(row)
                print(line(row), flush=True)
        del model
        free(device)
    options.out.mkdir(parents=True, exist_ok=True)
    result = {**setting(), "question": "cost of the proof", "model": shape.name, "layers": shape.layers, "rows": table}
    (options.out / "proof.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
