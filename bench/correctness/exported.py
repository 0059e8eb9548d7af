"""Train a tiny model, P1 and P2, export it three ways, and compare each with published weights and what was trained.

`check` is for `bench/correctness/models.py` and the tests: what it compares with is put together by plain transformers
alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
TINY = ROOT / "jobs" / "tiny"
ADAPTER_OFF = (
    5e-5  # of the largest logit: PEFT adds the adapter's product to the layer's, we compare with one sum of weights
)
JOB = """phase = "{phase}"
{head}
[model]
base = "{base}"
load = "{load}"
{vocab}
[data]
corpus = "{corpus}"
seq_len = 32
[train]
steps = 4
batch = 4
micro_batch = 2
lr = 0.02
layers = "{layers}"
[evaluate]
every_steps = 4
max_windows = 2
samples = {samples}
hopes = false
[checkpoint]
every_steps = 4
"""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What came of one model; `why` is the first thing that went wrong."""

    p1: bool = False
    p2: bool = False
    export_checked: bool = False
    why: str = ""
    off: Mapping[str, float] | None = None  # of each export, the largest difference of a logit


class Wrong(Exception):
    """An export is not what was trained."""


def run_command(work: Path, *words: str) -> subprocess.CompletedProcess[str]:
    settings = {"WAKE2VEC_HOME": str(work / "home"), "WAKE2VEC_STORE": f"dir:{work / 'store'}"}
    return subprocess.run(
        [Path(sys.executable).with_name("wake2vec-runner"), *words],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **settings},
    )  # fmt: skip


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that failed said; nothing where it did what it was asked."""
    return (done.stderr or done.stdout).strip().splitlines()[-1] if done.returncode else ""


def export_words(job: str, to: Path, merge: bool) -> list[str]:
    return ["export", job, "--to", str(to), "--dtype", "fp32", *(["--merge"] if merge else [])]


def check(
    model: Path,
    work: Path,
    *,
    layers: str = "autograd",
    load: str = "fp32",
    settings: str = "",
    corpus: Path = TINY / "corpus.txt",
    samples: int = 1,
    export: Callable[[Path, str, Path, bool], str] | None = None,
    run: Callable[..., subprocess.CompletedProcess[str]] = run_command,
) -> Seen:
    """Through the command line: enqueue, train, export. `model` is a folder with the tokenizer of jobs/tiny.

    `settings`: of the home; `run` runs a command; `export` exports without one, and says what went wrong.
    """
    (work / "home").mkdir(parents=True, exist_ok=True)
    (work / "home" / "settings.toml").write_text(settings)
    vocab = f'[vocab]\nlexicon = "{TINY / "lexicon.txt"}"'
    for phase, head, own in (("p1", 'name = "p1"', vocab), ("p2", 'name = "p2"\nafter = "p1"', "")):
        text = JOB.format(
            phase=phase, head=head, base=model, vocab=own, corpus=corpus, layers=layers, load=load, samples=samples
        )
        (work / f"{phase}.toml").write_text(text)
    if said := complaint(run(work, "enqueue", str(work / "p1.toml"), str(work / "p2.toml"))):
        return Seen(why=f"refused: {said}")
    run(work, "start", "--until-empty")
    runs = work / "home" / "runs"
    done = [(runs / phase / "final").is_dir() for phase in ("p1", "p2")]
    if not all(done):
        return Seen(p1=done[0], why=cause_of(runs / ("p2" if done[0] else "p1")))
    for name, job in (("p1", "p1"), ("merged", "p2"), ("adapter", "p2")):
        to, merge = work / name, name == "merged"
        if said := export(work, job, to, merge) if export else complaint(run(work, *export_words(job, to, merge))):
            return Seen(p1=True, p2=True, why=f"export {name}: {said}")
    try:
        return Seen(p1=True, p2=True, export_checked=True, off=compare(model, work, runs))
    except Wrong as error:
        return Seen(p1=True, p2=True, why=str(error))


def cause_of(run: Path) -> str:
    result = run / "result.json"
    return str(json.loads(result.read_text())["cause"]) if result.is_file() else "it never ran"


@torch.no_grad()
def compare(model: Path, work: Path, runs: Path) -> dict[str, float]:
    """Largest difference of a logit in each export. Raises Wrong where one is too large."""
    from peft import PeftModel

    first = json.loads((runs / "p1" / "vocab" / "vocab.json").read_text())["first_new_id"]
    rows = load_file(runs / "p1" / "final" / "embed_tokens.safetensors")
    adapter = load_file(runs / "p2" / "final" / "adapter_model.safetensors")
    settings = json.loads((runs / "p2" / "final" / "adapter_config.json").read_text())
    count = next(iter(rows.values())).shape[0]
    ids = torch.cat([torch.arange(3, 20), torch.arange(first, first + min(count, 12))])[None]
    off = {}
    for name in ("p1", "merged", "adapter"):
        expected = with_rows(published(model), rows, first)
        if name != "p1":
            add_adapter(expected, adapter, settings["lora_alpha"] / settings["r"])
        found = published(work / name / "base" if name == "adapter" else work / name)
        if name == "adapter":
            found = PeftModel.from_pretrained(found, work / name).eval()
        want, have = (one(input_ids=ids, use_cache=False).logits for one in (expected, found))
        off[name] = float((want - have).abs().max())
        allowed = ADAPTER_OFF * max(1.0, float(want.abs().max())) if name == "adapter" else 0.0
        if not off[name] <= allowed or not want.isfinite().all():
            raise Wrong(f"{name}: logits are {off[name]:.2g} off")
        found.generate(input_ids=ids, max_new_tokens=3, do_sample=False)
    return off


def published(folder: Path) -> Any:
    """As transformers loads it. Raises Wrong where a weight is missing or one too many."""
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    if odd := [*info["missing_keys"], *info["mismatched_keys"]]:
        raise Wrong(f"{folder.name}: transformers finds no {odd[0]}")
    if getattr(model, "quantization_method", None) is not None:
        model = model.dequantize()
    return model.eval()


def with_rows(model: Any, rows: Mapping[str, Tensor], first: int) -> Any:
    """The same model with larger matrices: published rows, then trained ones."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    below_in, below_out = inputs.weight[:first].clone(), outputs.weight[:first].clone()
    for module, below, side in ((inputs, below_in, "input"), (outputs, below_out, "output")):
        new = rows["rows"] if "rows" in rows else rows[f"rows.{side}"]
        module.weight = nn.Parameter(torch.cat([below, new]), requires_grad=False)
    if getattr(outputs, "bias", None) is not None:
        outputs.bias = nn.Parameter(torch.cat([outputs.bias[:first], torch.zeros(len(new))]), requires_grad=False)
    inputs.padding_idx = None
    return model


def add_adapter(model: Any, adapter: Mapping[str, Tensor], scaling: float) -> None:
    """W + scaling · B A, on the side that the weight is stored."""
    for name, down in adapter.items():
        if not name.endswith("lora_A.weight"):
            continue
        module = model.get_submodule(name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
        up = adapter[name.replace("lora_A", "lora_B")]
        if not up.any():
            raise Wrong(f"{name}: its adapter did not train")
        left, right = (down.t(), up.t()) if type(module).__name__ == "Conv1D" else (up, down)
        module.weight.copy_(module.weight + scaling * (left @ right))
