"""The three runs of a P3 study on a small model and a real text: `python -m bench.p3_study --to DIR`.

The model is a Llama of three layers with a vocabulary of its own, both trained here on Ulysses, since nothing larger
gives nine runs in minutes on a CPU. 2,500 words of the text that the tokenizer breaks up, groups derived from them;
P1, P2, then treatment, control and shuffled runs through the command line. Writes bench/results/p3-study.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from bench.materials import default_cache, materials
from bench.tiny import Shape, make_model, make_tokenizer, save, train
from wake2vec.contract.versions import versions
from wake2vec.data.tokens import pieces
from wake2vec.vocab.inject import load_tokenizer

RESULTS = Path(__file__).resolve().parent / "results"
COMMON = """
[model]
base = "{model}"
load = "fp32"
compute = "fp32"
[data]
corpus = "{text}"
seq_len = 64
[evaluate]
every_steps = {every}
max_windows = 48
samples = 0
[checkpoint]
every_steps = 20
"""
JOBS = {
    "p1": """phase = "p1"
{common}
[vocab]
lexicon = "lexicon.txt"
[train]
steps = {steps}
batch = 4
lr = 5e-3
warmup_ratio = 0.05
""",
    "p2": """phase = "p2"
after = "p1"
{common}
[train]
steps = {steps}
batch = 4
optimizer = "adamw"
lr = 2e-4
warmup_ratio = 0.1
""",
    "p3": """phase = "p3"
after = "p2"
{common}
[train]
steps = {steps}
batch = 4
optimizer = "adamw"
lr = 5e-4
warmup_ratio = 0.1
weight_decay = 0.01
[morphemes]
groups = "groups.jsonl"
weight = 0.3
[geometry]
start_step = 10
ramp_steps = 10
""",
}
STUDY = """of = "p3.toml"
[vary]
"train.seed" = {seeds}
[vary.run]
treatment = {{}}
control = {{ "morphemes.weight" = 0.0 }}
shuffled = {{ "morphemes.shuffle" = true }}
"""


def make_small_model(folder: Path, text: str, *, steps: int) -> float:
    """A byte-level BPE of 6,000 tokens and 1.5 M weights; its last training loss."""
    tokenizer = make_tokenizer(text, 6000)
    model = make_model(tokenizer, Shape(vocabulary=6000, width=128, layers=3))
    loss = train(model, tokenizer(text)["input_ids"], steps=steps, batch=8, length=64)
    save(model, tokenizer, folder)
    return loss


def write_lexicon(folder: Path, model: Path, text: Path, count: int) -> None:
    """The most frequent words of four letters and more that the tokenizer cuts into pieces."""
    words = Counter(re.findall(r"[^\W\d_]{4,}", text.read_text("utf-8-sig")))
    often = [word for word, times in words.most_common() if times >= 2]
    cut = pieces(often, load_tokenizer(model))
    kept = [word for word, ids in zip(often, cut, strict=True) if len(ids) > 1][:count]
    (folder / "lexicon.txt").write_text("\n".join(kept) + "\n", "utf-8")


def command(folder: Path, *words: str) -> str:
    surroundings = os.environ | {"WAKE2VEC_HOME": str(folder / "home"), "WAKE2VEC_STORE": f"dir:{folder / 'store'}"}
    done = subprocess.run(
        [sys.executable, "-m", "runner", *words],
        env=surroundings,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def study(folder: Path, model: Path, text: Path, *, steps: tuple[int, int, int], seeds: list[int]) -> dict[str, Any]:
    write_lexicon(folder, model, text, 2500)
    command(folder, "morphemes", "lexicon.txt", "--derive", "--corpus", str(text), "--least", "5", "--cap", "120",
            "--out", "groups.jsonl")  # fmt: skip
    for name, number in zip(JOBS, steps, strict=True):
        common = COMMON.format(model=model, text=text, every=max(20, number // 2))
        (folder / f"{name}.toml").write_text(JOBS[name].format(common=common, steps=number), "utf-8")
    (folder / "study.toml").write_text(STUDY.format(seeds=seeds), "utf-8")
    command(folder, "study", "study.toml")
    command(folder, "start", "--until-empty")
    found: dict[str, Any] = json.loads(command(folder, "study", "study.toml", "--json"))
    groups = [json.loads(line) for line in (folder / "groups.jsonl").read_text("utf-8").splitlines()]
    return {
        "runs": found["runs"],
        "seeds": seeds,
        "steps": dict(zip(JOBS, steps, strict=True)),
        "groups": len(groups),
        "pairs": sum(group["n_examples"] for group in groups),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, required=True, help="a folder for home, store and job files")
    parser.add_argument("--from", dest="made", type=Path, help="the text, where it is here already")
    parser.add_argument("--steps", type=int, nargs=3, default=(150, 60, 150), metavar=("P1", "P2", "P3"))
    parser.add_argument("--pretrain", type=int, default=600, help="steps of the model's own training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    asked = parser.parse_args()
    if asked.made is None:
        found = materials(default_cache())
        text = found.text_path
    else:
        text = asked.made
    folder, text = asked.to.resolve(), text.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    loss = make_small_model(folder / "model", text.read_text("utf-8-sig"), steps=asked.pretrain)
    result = study(folder, folder / "model", text, steps=tuple(asked.steps), seeds=asked.seeds)
    result |= {
        "model": f"Llama, 3 layers of 128, made here: {loss:.3f} nats after {asked.pretrain} steps",
        "text": "Ulysses, 1922",
        "hardware": "CPU",
        "threads": torch.get_num_threads(), "versions": versions(), "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    (RESULTS / "p3-study.json").write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", "utf-8")
    print(json.dumps(result["runs"], indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
