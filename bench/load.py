"""What loading costs: peak device and host memory of the streamed NF4 load, beside what the model holds afterwards.

`python -m bench.load --model qwen14b --layers 2` publishes random weights of that width in a temporary folder first.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import torch

from bench.measure import GIB, setting
from bench.p1 import MODELS, parser
from bench.random_models import TINY, config_of
from wake2vec.load import load_base
from wake2vec.shapes import SHAPES


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--layers", type=int, default=2)
    chosen = options.parse_args()
    shape = replace(SHAPES.get(MODELS[chosen.model], TINY), layers=chosen.layers)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        publish(shape, Path(folder))
        _, report = load_base(folder, load="nf4", compute="fp16" if device.type == "cuda" else "auto", device=device)
    result = {**setting(), "question": "peak memory of a load", "model": shape.name, "layers": shape.layers}
    result |= {
        "seconds": report.seconds,
        "device_gib": report.device_bytes / GIB,
        "device_peak_gib": report.device_peak_bytes / GIB,
        "host_peak_gib": report.host_peak_bytes / GIB,
        "precision": asdict(report.precision),
        "note": report.note,
    }
    print(json.dumps(result, indent=1))
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "load.json").write_text(json.dumps(result, indent=1) + "\n")


def publish(shape: object, folder: Path) -> None:
    """Write random weights as a model folder, in a process of its own: its memory is not the load's."""
    child = os.fork()
    if child == 0:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_config(config_of(shape), dtype=torch.bfloat16)  # type: ignore[arg-type]
        model.save_pretrained(folder, max_shard_size="2GB")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"publishing ended with {status}"


if __name__ == "__main__":
    main()
