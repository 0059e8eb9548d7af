"""Ways of teaching a model new words, side by side on one model, text and number of steps: `python -m bench.quality`.

Held-out text is the same for every contender. Nats are spread over the bytes of each token, so that contenders with
different tokenizers are measured on the same bytes: those of new words (with the space before them), and the rest.
Writes bench/results/quality.json and a picture, and prints the table.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bench.learners import WAYS, Learner, Ours, Start, Way, cosine
from wake2vec.contract.words.lexicon import read_lexicon
from wake2vec.data.blocks import Windows
from wake2vec.data.control import english
from wake2vec.data.corpus import open_corpus
from wake2vec.data.dataset import Data, prepare
from wake2vec.data.permutation import blocks_of_step
from wake2vec.model.loss import blocked_cross_entropy
from wake2vec.model.new_rows import published_head
from wake2vec.vocab.calibrate import calibrate_head
from wake2vec.vocab.idmap import Match
from wake2vec.vocab.initial import Method, initial_rows
from wake2vec.vocab.inject import Injection, inject, load_tokenizer

RESULTS = Path(__file__).resolve().parent / "results"
WARMUP = 0.05
FAR = 1.3  # times the best other text: what is beyond is left out of the picture


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way: what it starts from and what it does. `output` is the start of output rows where they are their own."""

    name: str
    way: Way = "ours"
    match: Match | Literal["none"] = "word"
    init: Method = "subwords"
    output: Method | None = None
    scale: float = 1.0
    rows: Literal["auto", "shared", "separate", "input"] = "auto"
    optimizer: Literal["adafactor", "adamw"] = "adafactor"
    lr: float = 5e-3
    update: Literal["all", "seen"] = "seen"
    calibrate: bool = False


OURS = Contender(name="ours: separate rows, calibrated", rows="separate", output="first_piece", calibrate=True)
CONTENDERS = (
    Contender(name="no new words", match="none"),
    Contender(
        name="original overlay", way="overlay", match="anywhere", init="spherical", scale=1.5, rows="input", lr=5e-4
    ),
    Contender(
        name="original overlay, lr x10", way="overlay", match="anywhere", init="spherical", scale=1.5, rows="input"
    ),
    Contender(name="full matrix, masked", way="masked", match="anywhere", init="mean", optimizer="adamw", lr=1e-3),
    Contender(name="full matrix, masked, whole words", way="masked", init="mean", optimizer="adamw", lr=1e-3),
    Contender(name="PEFT trainable tokens", way="peft", init="mean", optimizer="adamw", lr=1e-3),
    Contender(name="PEFT trainable tokens, subwords", way="peft", init="subwords", optimizer="adamw", lr=1e-3),
    Contender(name="ours, every row every step", update="all"),
    Contender(name="ours, AdamW, every row every step", update="all", optimizer="adamw", lr=1e-3),
    Contender(name="ours: mean", init="mean"),
    Contender(name="ours: mean_noise", init="mean_noise"),
    Contender(name="ours: spherical", init="spherical"),
    Contender(name="ours: subwords"),
    Contender(name="ours: compositional", init="compositional"),
    Contender(name="ours: AdamW", optimizer="adamw", lr=1e-3),
    Contender(name="ours: input rows only", rows="input"),
    Contender(name="ours: separate rows", rows="separate"),
    Contender(name="ours: shared, calibrated", calibrate=True),
    Contender(name="ours: shared, calibrated, every row every step", calibrate=True, update="all"),
    Contender(name="ours: separate, subwords, calibrated", rows="separate", calibrate=True),
    OURS,
    replace(OURS, name="ours: separate, calibrated, every row every step", update="all"),
    replace(OURS, name="ours: separate, calibrated, AdamW", optimizer="adamw", lr=1e-3),
    replace(OURS, name="ours: separate, calibrated, lr x2", lr=1e-2),
    replace(OURS, name="ours: separate, calibrated, lr / 2.5", lr=2e-3),
)


@dataclass(frozen=True, kw_only=True)
class Bits:
    """Bits per byte on held-out text: all of it, bytes of new words (also by how often training met them), the rest."""

    all: float
    new: float
    base: float
    never: float | None  # None where the held-out text has no such bytes
    rarely: float | None
    often: float | None
    english: float
    english_base: float  # among published tokens alone


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table."""

    contender: str
    init: str
    rows: str
    before: Bits
    after: Bits
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is the same for all contenders."""

    model: Path
    text: Path
    lexicon: Path
    seed: int
    steps: int
    batch: int
    seq_len: int
    held_out: float
    device: str


class Bench:
    """Vocabularies and data of a setting, made once each."""

    def __init__(self, setting: Setting, scratch: Path) -> None:
        self.setting, self.scratch = setting, scratch
        self.base = load_tokenizer(setting.model)
        self.words = read_lexicon(setting.lexicon).words
        self.corpus = open_corpus([setting.text])
        self._vocabularies: dict[Match, tuple[Injection, Data]] = {}
        self.regions = self._regions()

    def vocabulary(self, match: Match) -> tuple[Injection, Data]:
        if match not in self._vocabularies:
            injection = inject(self.base, self.words, directory=self.scratch / match, match=match)
            self._vocabularies[match] = (injection, self.data(injection.tokenizer))
        return self._vocabularies[match]

    def data(self, tokenizer: Any) -> Data:
        return prepare(
            self.corpus, tokenizer, seq_len=self.setting.seq_len, fraction=self.setting.held_out, seed=self.setting.seed
        )

    def batches(self, data: Data) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(self.setting.steps):
            arrays = data.blocks.batch(blocks_of_step(step, self.setting.batch, len(data.blocks), self.setting.seed))
            inputs, targets = (torch.from_numpy(array).to(self.setting.device) for array in arrays)
            yield inputs, targets

    def _regions(self) -> npt.NDArray[np.int8]:
        """Of each held-out byte: 0 no new word, else one that the steps meet never (1), up to 3 times (2), more (3)."""
        injection, data = self.vocabulary("word")
        first = injection.id_map.first_new_id
        met = np.zeros(injection.id_map.n_ids, dtype=np.int64)
        for _, targets in self.batches(data):
            met += np.bincount(targets.cpu().numpy().ravel(), minlength=len(met))
        windows = data.held_out
        region = np.zeros(int((windows.places + windows.bytes).max()), dtype=np.int8)
        new = windows.targets >= first
        for place, size, id_ in zip(windows.places[new], windows.bytes[new], windows.targets[new], strict=True):
            region[place : place + size] = 1 + int(np.searchsorted([1, 4], met[id_], side="right"))
        return region


def run(bench: Bench, contender: Contender) -> Row:
    """Train one contender and measure it before and after."""
    started = time.monotonic()
    model = load_model(bench.setting)
    if contender.match == "none":
        data, tokenizer = bench.data(bench.base), bench.base
        learner: Learner = Untrained(model, len(bench.base))
    else:
        injection, data = bench.vocabulary(contender.match)
        tokenizer = injection.tokenizer
        learner = WAYS[contender.way](model, start_of(contender, model, injection, bench))
        if contender.calibrate:
            assert isinstance(learner, Ours), f"{contender.name} has no rows of its own"
            calibrate_head(model, learner.installed.head, data.blocks, first_new_id=injection.id_map.first_new_id)
    control = [english(cutter, bench.setting.seq_len) for cutter in (tokenizer, bench.base)]
    before = measure(learner, data.held_out, control, bench)
    if contender.match != "none":
        for step, (inputs, targets) in enumerate(bench.batches(data)):
            warmup = max(1, round(WARMUP * bench.setting.steps))
            learner.step(inputs, targets, cosine(step, bench.setting.steps, contender.lr, warmup))
    after = measure(learner, data.held_out, control, bench)
    return Row(
        contender=contender.name,
        init=contender.init,
        rows=contender.rows,
        before=before,
        after=after,
        seconds=round(time.monotonic() - started, 1),
    )


class Untrained:
    """The base model with its own tokenizer."""

    def __init__(self, model: Any, tokens: int) -> None:
        self.model, self.head = model, published_head(model, tokens)

    @torch.no_grad()
    def nll(self, inputs: Tensor, targets: Tensor, *, published_alone: bool = False) -> Tensor:
        del published_alone  # there are no others
        hidden = self.model.get_decoder()(input_ids=inputs, use_cache=False).last_hidden_state.flatten(0, 1)
        return blocked_cross_entropy(hidden, self.head, targets.flatten()).token_nll.view_as(targets)

    def step(self, inputs: Tensor, targets: Tensor, lr: float) -> None:
        raise AssertionError(f"there is nothing to train on {inputs.shape} {targets.shape} at {lr}")


def load_model(setting: Setting) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(setting.model, dtype=torch.float32)
    return model.to(setting.device).eval()


def start_of(contender: Contender, model: Any, injection: Injection, bench: Bench) -> Start:
    weight_in, weight_out = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    tied = weight_in is weight_out

    def rows_of(method: Method, weight: Tensor, part: Literal["input", "output"]) -> Tensor:
        return initial_rows(
            injection.id_map,
            weight,
            method=method,
            seed=bench.setting.seed,
            tokenizer=bench.base,
            part=part,
            scale=contender.scale,
        )

    rows = contender.rows if contender.rows != "auto" else ("shared" if tied else "separate")
    return Start(
        first_new_id=injection.id_map.first_new_id,
        input_rows=rows_of(contender.init, weight_in, "input"),
        # a tied model has one matrix: the same words start at the same rows on both sides
        output_rows=rows_of(contender.output or contender.init, weight_out, "input" if tied else "output"),
        rows=rows,
        optimizer=contender.optimizer,
        only_seen=contender.update == "seen",
    )


def measure(learner: Learner, held_out: Windows, control: list[Windows], bench: Bench) -> Bits:
    """`control`: English as the learner's tokenizer cuts it, and as the published one does."""
    spread, covered = per_byte(learner, held_out, len(bench.regions), bench.setting.device)
    size = len(bench.regions)
    parts = {
        "all": np.ones(size, dtype=bool),
        "new": bench.regions > 0,
        "base": bench.regions == 0,
        **{name: bench.regions == kind for kind, name in enumerate(("never", "rarely", "often"), start=1)},
    }
    bits: dict[str, Any] = {name: mean_bits(spread, covered & part) for name, part in parts.items()}
    for name, windows in zip(("english", "english_base"), control, strict=True):
        size = int((windows.places + windows.bytes).max())
        alone = name == "english_base"
        bits[name] = mean_bits(*per_byte(learner, windows, size, bench.setting.device, published_alone=alone))
    return Bits(**bits)


def mean_bits(nats: npt.NDArray[np.float64], where: npt.NDArray[np.bool_]) -> float | None:
    return float(nats[where].sum() / math.log(2) / where.sum()) if where.any() else None


def per_byte(
    learner: Learner, windows: Windows, size: int, device: str, *, at_once: int = 16, published_alone: bool = False
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Nats of each byte of the held-out text, and which bytes were asked for."""
    nats, covered = np.zeros(size + 1), np.zeros(size + 1, dtype=bool)
    for first in range(0, len(windows.inputs), at_once):
        part = slice(first, first + at_once)
        inputs, targets = (torch.from_numpy(array[part]).to(device) for array in (windows.inputs, windows.targets))
        found = learner.nll(inputs, targets, published_alone=published_alone).double().cpu().numpy()
        asked = windows.targets[part] >= 0
        places, lengths = windows.places[part][asked], windows.bytes[part][asked]
        # the later pieces of one character stand for no byte of their own: they count on the byte before
        owners = np.where(lengths > 0, places, np.maximum(places - 1, 0))
        lengths = np.maximum(lengths, 1)
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        where = np.repeat(owners, lengths) + within
        np.add.at(nats, where, np.repeat(found[asked] / lengths, lengths))
        covered[where] = True
    return nats[:size], covered[:size]


def as_table(rows: list[Row]) -> str:
    head = [
        "contender",
        "all",
        "new words",
        "never met",
        "1-3 times",
        "often",
        "other text",
        "English",
        "English base",
        "s",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        pairs = [
            " → ".join(
                "–" if bits is None else f"{bits:.3f}" for bits in (getattr(row.before, name), getattr(row.after, name))
            )
            for name in ("all", "new", "never", "rarely", "often", "base", "english", "english_base")
        ]
        lines.append("| " + " | ".join([row.contender, *pairs, f"{row.seconds:.0f}"]) + " |")
    return "\n".join(lines)


def plot(rows: list[Row], path: Path) -> None:
    """All bytes against new-word bytes, before (hollow) and after training."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(10, 7), layout="constrained")
    best = min(row.after.base for row in rows)
    near = [row for row in rows if row.after.base < FAR * best]  # one far off would press all others into a corner
    for number, row in enumerate(near):
        colour = plt.get_cmap("tab20")(number % 20)
        axes.annotate(
            "",
            xy=(row.after.base, row.after.new),
            xytext=(row.before.base, row.before.new),
            arrowprops={"arrowstyle": "->", "color": colour, "alpha": 0.5},
        )
        marker = "os^Dv"[number // 20]
        axes.plot(row.before.base, row.before.new, marker, color=colour, fillstyle="none")
        axes.plot(row.after.base, row.after.new, marker, color=colour, label=f"{row.contender} ({row.after.all:.3f})")
    axes.set_xlabel("other text, bits per byte")
    axes.set_ylabel("new words, bits per byte")
    left_out = f"; {len(rows) - len(near)} far to the right left out" if len(near) < len(rows) else ""
    axes.set_title(f"Held-out text before → after training; in brackets: all bytes{left_out}")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    parser.add_argument("--model", type=Path, help="model folder (default: SmolLM2-135M from the cache)")
    parser.add_argument("--untied", action="store_true", help="an untied model made from scratch, instead of SmolLM2")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--lexicon", type=Path)
    parser.add_argument("--seed", type=int, default=42, help="held-out text, order of the blocks, first rows")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq-len", type=int, default=64)
    parser.add_argument("--held-out", type=float, default=0.03, help="share of the text that is measured on")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="*", help="contenders whose name holds one of these")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    setting = setting_of(arguments)
    chosen = [one for one in CONTENDERS if not arguments.only or any(part in one.name for part in arguments.only)]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(setting, Path(scratch))
        for number, contender in enumerate(chosen, start=1):
            row = run(bench, contender)
            rows.append(row)
            print(f"[{number}/{len(chosen)}] {as_table([row]).splitlines()[-1]}", file=sys.stderr, flush=True)
            write(rows, setting, arguments.out)
    plot(rows, arguments.out / "quality.png")
    print(as_table(rows))
    return 0


def setting_of(arguments: argparse.Namespace) -> Setting:
    from bench.materials import default_cache, materials
    from bench.tiny import untied_laboratory

    cache = default_cache()
    model, text, lexicon = arguments.model, arguments.text, arguments.lexicon
    if arguments.untied:
        model, text, lexicon = untied_laboratory(cache)
    if not (model and text and lexicon):
        found = materials(cache)
        model, text, lexicon = model or found.model_dir, text or found.text_path, lexicon or found.lexicon_path
    return Setting(
        model=model,
        text=text,
        lexicon=lexicon,
        seed=arguments.seed,
        steps=arguments.steps,
        batch=arguments.batch,
        seq_len=arguments.seq_len,
        held_out=arguments.held_out,
        device=arguments.device,
    )


def write(rows: list[Row], setting: Setting, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    data = [
        {
            "contender": row.contender,
            "init": row.init,
            "rows": row.rows,
            **{
                f"bits_per_byte_{name}": [getattr(row.before, name), getattr(row.after, name)]
                for name in ("all", "new", "base")
            },
            "english_before": row.before.english,
            "english_after": row.after.english,
            "english_base_before": row.before.english_base,
            "english_base_after": row.after.english_base,
            "before": asdict(row.before),
            "after": asdict(row.after),
            "seconds": row.seconds,
        }
        for row in rows
    ]
    about = {"model": setting.model.name, "seed": setting.seed, "steps": setting.steps}
    about |= {"batch": setting.batch, "seq_len": setting.seq_len, "held_out": setting.held_out}
    text = json.dumps({"setting": about, "rows": data}, indent=1)
    unfinished = folder / "quality.json.tmp"
    unfinished.write_text(text + "\n", encoding="utf-8")
    unfinished.replace(folder / "quality.json")


if __name__ == "__main__":
    sys.exit(main())
