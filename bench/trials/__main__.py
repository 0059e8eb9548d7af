"""Run studies of ways to teach a model new words: `python -m bench.trials quality forms questions levers`.

Each has a plan of trials and writes bench/results/STUDY.json from what they found. Trials are kept in a file as they
end (`--to`), so a run can be stopped and gone on with, and `--seconds 0` only writes results anew.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bench.trials.crew import Found, keep, work
from bench.trials.study import Scale
from wake2vec.contract.files import write_json
from wake2vec.contract.versions import versions

RESULTS = Path(__file__).resolve().parents[1] / "results"
STUDIES = ("quality", "forms", "questions", "levers")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.trials", description=__doc__)
    parser.add_argument("studies", nargs="+", choices=STUDIES)
    parser.add_argument("--lab", default="smollm2", help="smollm2, untied or tiny: model, text and words")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--exploring", type=int, help="steps of exploratory runs (default: as many as reported ones)")
    parser.add_argument("--to", type=Path, help="file of trials (default: trials-LAB.jsonl in the cache)")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no trial after so long")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--suffix", default="", help="behind the names of the results, for other steps than usual")
    asked = parser.parse_args(argv)
    scale = Scale(
        lab=asked.lab,
        steps=asked.steps,
        batch=asked.batch,
        seq_len=asked.seq_len,
        exploring=asked.exploring or asked.steps,
    )
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes
    modules = {name: importlib.import_module(f"bench.studies.{name}") for name in asked.studies}
    plan = lambda found: [trial for module in modules.values() for trial in module.plan(found, scale)]  # noqa: E731
    file = asked.to or default_file(asked.lab)
    about = machine(file, device=asked.device, ran=asked.seconds > 0)
    found = work(plan, file, device=asked.device, processes=asked.processes, seconds=asked.seconds)
    if "questions" in modules:
        keep(file, found, modules["questions"].compare_rows(found, scale, file.with_suffix(".rows")))
    for name, module in modules.items():
        home = name if asked.lab == module.LAB else f"{name}-{asked.lab}"
        write(asked.out, home + asked.suffix, module, found, scale, about)
    return 0


def default_file(lab: str) -> Path:
    from bench.material.materials import default_cache

    return default_cache() / f"trials-{lab}.jsonl"


def machine(file: Path, *, device: str, ran: bool) -> dict[str, Any]:
    """Where and with what the trials of a file ran, kept beside it."""
    beside = file.with_suffix(".about.json")
    if ran:
        card = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {platform.machine()}"
        write_json(beside, {"hardware": card, "versions": versions(), "date": time.strftime("%Y-%m-%d")})
    found: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
    return found


def write(folder: Path, name: str, module: Any, found: Found, scale: Scale, about: dict[str, Any]) -> None:
    summary = module.summary(found, scale)
    if summary is None:
        print(f"{name}: not all of its trials are there", file=sys.stderr)
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / f"{name}.json",
        {"study": module.__name__.rpartition(".")[2], "setting": vars(scale), **about, **summary},
    )
    if draw := getattr(module, "plot", None):
        draw(summary, folder / f"{name}.png")


if __name__ == "__main__":
    sys.exit(main())
