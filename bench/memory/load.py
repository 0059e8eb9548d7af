"""What loading costs: peak device and host memory of the streamed NF4 load, beside what the model holds afterwards.

`python -m bench.memory.load --model qwen14b` publishes random weights of that shape in a temporary folder first, or
loads from `--folder`, where they were published before.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import torch

from bench.material.random_models import TINY
from bench.speed.measure import GIB, cap_memory, setting
from bench.speed.p1 import MODELS, parser
from wake2vec.contract.models.model_shapes import SHAPES, ModelShape
from wake2vec.model.load import load_base


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--layers", type=int, help="fewer than the model has")
    options.add_argument("--folder", type=Path, help="a published model, instead of a temporary one")
    chosen = options.parse_args()
    shape = SHAPES.get(MODELS[chosen.model], TINY)
    shape = replace(shape, layers=chosen.layers or shape.layers)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with ExitStack() as stack:
        folder = chosen.folder
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            apart(shape, folder)
        cap_memory(device, chosen.cap_gib)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        _model, report = load_base(
            str(folder), load="nf4", compute="fp16" if device.type == "cuda" else "auto", device=device
        )
    result = {**setting(), "question": "peak memory of a load", "model": shape.name, "layers": shape.layers}
    result |= {
        "seconds": report.seconds,
        "device_gib": torch.cuda.memory_allocated() / GIB if device.type == "cuda" else 0,
        "device_peak_gib": torch.cuda.max_memory_allocated() / GIB if device.type == "cuda" else 0,
        "host_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB,
        "precision": asdict(report.precision),
        "note": report.note,
    }
    print(json.dumps(result, indent=1))
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "load.json").write_text(json.dumps(result, indent=1) + "\n")


def apart(shape: ModelShape, folder: Path) -> None:
    """Publish in a process of its own: its memory is not the load's."""
    worker = multiprocessing.get_context("spawn").Process(target=publish_here, args=(shape, folder))
    worker.start()
    worker.join()
    assert worker.exitcode == 0, f"publishing ended with {worker.exitcode}"


def publish_here(shape: ModelShape, folder: Path) -> None:
    from bench.material.published import publish

    publish(shape, folder, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


if __name__ == "__main__":
    main()
