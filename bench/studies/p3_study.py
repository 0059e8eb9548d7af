"""The runs of a P3 study on a real text: `python -m bench.studies.p3_study --to DIR [--model FOLDER]`.

Words of *Ulysses* that the tokenizer breaks up, groups derived from them, names and compounds as devices; P1, P2, then
treatment, control, shuffled and other runs through the command line, each seed in a home of its own beside the others.
Without `--model` a Llama of three layers is made here, since nothing larger gives so many runs in minutes on a CPU.
Writes bench/results/p3-study.json.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.demo import here
from bench.material.materials import default_cache, ulysses
from bench.material.tiny import Shape, make_model, make_tokenizer, save, train
from bench.publish.tables import as_markdown
from runner.children import python
from runner.commands.study import FIGURES
from wake2vec.contract.expectation import value_at
from wake2vec.contract.versions import versions
from wake2vec.data.tokens import pieces
from wake2vec.vocab.inject import load_tokenizer

RESULTS = Path(__file__).resolve().parents[1] / "results"
COMMON = """
[model]
base = "{model}"
load = "{load}"
[data]
corpus = "{text}"
seq_len = {seq_len}
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
batch = {batch}
lr = 5e-3
warmup_ratio = 0.05
""",
    "p2": """phase = "p2"
after = "p1"
{common}
[train]
steps = {steps}
batch = {batch}
optimizer = "adamw"
lr = 2e-4
warmup_ratio = 0.1
""",
    "p3": """phase = "p3"
after = "p2"
{common}
[train]
steps = {steps}
batch = {batch}
optimizer = "adamw"
lr = 5e-4
warmup_ratio = 0.1
weight_decay = 0.01
[morphemes]
groups = "groups.jsonl"
weight = 0.3
[devices]
groups = "devices.jsonl"
weight = 0.1
held_out = 0.2
[geometry]
start_step = 10
ramp_steps = 10
""",
}
STUDY = """of = "p3.toml"
[vary]
"train.seed" = [{seed}]
[vary.run]
"""
RUNS = {
    "treatment": "{}",
    "control": '{ "morphemes.weight" = 0.0, "devices.weight" = 0.0 }',
    "shuffled": '{ "morphemes.shuffle" = true }',
    "light": '{ "morphemes.weight" = 0.05 }',
    "offset": '{ "morphemes.loss" = "offset" }',
    "contrast": '{ "morphemes.loss" = "contrast" }',
}
WORDS = ("lexicon.txt", "devices.jsonl")
OFTEN = 5  # times that a half of a compound stands alone
DERIVE = ("morphemes", "lexicon.txt", "--derive", "--least", "5", "--cap", "120", "--out", "groups.jsonl", "--corpus")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all runs have alike."""

    model: Path
    text: Path
    load: str
    seq_len: int
    batch: int
    steps: tuple[int, int, int]  # of P1, P2 and P3
    words: int
    runs: tuple[str, ...]


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


def write_devices(folder: Path, text: Path) -> None:
    """Classes of the lexicon's words that their letters and the text alone decide."""
    classes: dict[str, list[str]] = {"name": [], "capitals": [], "compound": []}
    counted = Counter(re.findall(r"[^\W\d_]+", text.read_text("utf-8-sig")))
    for word in (folder / "lexicon.txt").read_text("utf-8").split():
        if device := device_of(word, counted):
            classes[device].append(word)
    lines = [json.dumps({"device": name, "examples": words}, ensure_ascii=False) for name, words in classes.items()]
    (folder / "devices.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def device_of(word: str, counted: Mapping[str, int]) -> str | None:
    """A name is never written small, a compound is two words that the text often has alone."""
    small = word.lower()
    if word != small:
        return None if counted[small] else "capitals" if word.isupper() else "name"
    halves = ((word[:cut], word[cut:]) for cut in range(3, len(word) - 2))
    return "compound" if any(counted[left] >= OFTEN and counted[right] >= OFTEN for left, right in halves) else None


def command(folder: Path, *words: str) -> str:
    surroundings = here() | {"WAKE2VEC_HOME": str(folder / "home"), "WAKE2VEC_STORE": f"dir:{folder / 'store'}"}
    done = subprocess.run(
        python("runner", *words),
        env=surroundings,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def study(folder: Path, setting: Setting, seed: int) -> list[dict[str, Any]]:
    """P1, P2 and the runs of one seed, in a home of their own."""
    folder.mkdir()
    for name in WORDS:
        shutil.copy(folder.parent / name, folder)
    command(folder, *DERIVE, str(setting.text))
    values = {"model": setting.model, "text": setting.text, "load": setting.load, "seq_len": setting.seq_len}
    for name, number in zip(JOBS, setting.steps, strict=True):
        common = COMMON.format(**values, every=max(20, number // 2))
        (folder / f"{name}.toml").write_text(
            JOBS[name].format(common=common, steps=number, batch=setting.batch), "utf-8"
        )
    runs = "".join(f"{name} = {RUNS[name]}\n" for name in setting.runs)
    (folder / "study.toml").write_text(STUDY.format(seed=seed) + runs, "utf-8")
    command(folder, "study", "study.toml")
    command(folder, "start", "--until-empty")
    found: list[dict[str, Any]] = json.loads(command(folder, "study", "study.toml", "--json"))["runs"]
    return [beginning(folder, seed), *found]


def beginning(folder: Path, seed: int) -> dict[str, Any]:
    """What P2 left, as the control measured it before its first step."""
    ledger = folder / "home" / "runs" / f"study-seed-{seed}-control" / "logs" / "metrics.jsonl"
    rows = [json.loads(line) for line in ledger.read_text("utf-8").splitlines()]
    first = next(row for row in rows if row["kind"] == "evaluation" and row["step"] == 0)
    figures = {key: value for key, place in FIGURES.items() if (value := value_at(first, place)) is not None}
    about = {"job": "p2", "train.seed": seed, "run": "P2, where all begin", "bits_per_byte": first["bits_per_byte"]}
    return about | {key: value for key, value in figures.items() if "gain" not in key and key != "p"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, required=True, help="a folder for homes, stores and job files")
    parser.add_argument("--model", type=Path, help="a model's folder, instead of one made here")
    parser.add_argument("--text", type=Path, help="instead of Ulysses from the cache")
    parser.add_argument("--load", default="fp32")
    parser.add_argument("--words", type=int, default=2500)
    parser.add_argument("--seq-len", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, nargs=3, default=(150, 60, 150), metavar=("P1", "P2", "P3"))
    parser.add_argument("--pretrain", type=int, default=600, help="steps of a made model's own training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--out", type=Path, default=RESULTS / "p3-study.json")
    asked = parser.parse_args()
    text = (asked.text or ulysses(default_cache())).resolve()
    folder = asked.to.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    model, about = asked.model, str(asked.model and asked.model.name)
    if model is None:
        model = folder / "model"
        loss = make_small_model(model, text.read_text("utf-8-sig"), steps=asked.pretrain)
        about = f"Llama, 3 layers of 128, made here: {loss:.3f} nats after {asked.pretrain} steps"
    setting = Setting(
        model=model.resolve(), text=text, load=asked.load, seq_len=asked.seq_len, batch=asked.batch,
        steps=tuple(asked.steps), words=asked.words,
        runs=tuple(asked.runs),
    )  # fmt: skip
    # here, since several threads cannot import transformers at once
    write_lexicon(folder, setting.model, text, setting.words)
    write_devices(folder, text)
    with ThreadPoolExecutor(len(asked.seeds)) as pool:
        parts = list(pool.map(lambda seed: study(folder / f"seed-{seed}", setting, seed), asked.seeds))
    groups = (folder / f"seed-{asked.seeds[0]}" / "groups.jsonl").read_text("utf-8").splitlines()
    result = {
        "study": "p3_study",
        "runs": [run for part in parts for run in part],
        "seeds": asked.seeds,
        "steps": dict(zip(JOBS, setting.steps, strict=True)),
        "groups": len(groups),
        "pairs": sum(json.loads(line)["n_examples"] for line in groups),
        "model": about,
        "text": "Ulysses, 1922" if asked.text is None else text.name,
        **{name: getattr(setting, name) for name in ("load", "seq_len", "batch", "words")},
        "hardware": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }
    asked.out.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", "utf-8")
    for line in as_markdown(table(result)):
        print(line)


def table(result: Mapping[str, Any], part: str = "") -> list[dict[str, str]]:
    """A line for each run, the mean over its seeds, and how its verdict begins with each."""
    del part
    by_run: dict[str, list[dict[str, Any]]] = {}
    for run in result["runs"]:
        by_run.setdefault(run["run"], []).append(run)
    return [_line(name, runs) for name, runs in by_run.items()]


def _line(name: str, runs: list[dict[str, Any]]) -> dict[str, str]:
    def mean(key: str, form: str) -> str:
        values = [run[key] for run in runs if run.get(key) is not None]
        return format(sum(values) / len(values), form) if values else "–"

    return {
        "run": name,
        "seeds": str(len(runs)),
        "bits per byte": mean("bits_per_byte", ".4f"),
        "trained gain": mean("trained_gain", "+.3f"),
        "held-out consistency": mean("held_out_consistency", ".3f"),
        "held-out gain": mean("held_out_gain", "+.3f"),
        "p": " / ".join(f"{run['p']:.3f}" for run in runs if run.get("p") is not None),
        "analogy, first": mean("analogy_acc1", ".3f"),
        "devices": mean("device_balanced_accuracy", ".3f"),
        "held-out devices": mean("device_held_out_accuracy", ".3f"),
    }


if __name__ == "__main__":
    main()
