"""Forms of words and lines of print, side by side on one model and text: `python -m bench.forms`.

One id for a word (after a space alone), forms that share a row, forms with rows of their own, and with `--width` the
text in lines of print, kept or joined. Every contender takes the same steps over the same text and is measured on the
same held-out bytes: all of them, and those of each form. The difference to the first contender has a 95 % interval by
paired bootstrap over stretches of the held-out text. Writes bench/results/forms.json after every run.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from bench.learners import Ours, Start, cosine
from bench.materials import default_cache, materials
from bench.quality import RESULTS, Untrained, mean_bits, per_byte
from wake2vec.contract.files import write_json
from wake2vec.contract.versions import versions
from wake2vec.contract.words.forms import Finder, Form
from wake2vec.contract.words.lexicon import read_lexicon
from wake2vec.data.corpus import Corpus, open_corpus
from wake2vec.data.dataset import Data, prepare
from wake2vec.data.heldout import choose, spans_of_text
from wake2vec.data.lines import LineBreaks, as_printed, stretches
from wake2vec.data.permutation import blocks_of_step
from wake2vec.model.forms import write_out
from wake2vec.model.new_rows import SharedForms
from wake2vec.vocab.initial import initial_rows
from wake2vec.vocab.inject import Injection, inject, load_tokenizer
from wake2vec.vocab.occurrences import forms_in
from wake2vec.vocab.offsets import form_offsets, words_with

STRETCH, DRAWS = 2000, 2000  # bytes of held-out text that are drawn together, and how often
Which = Literal["none", "one", "shared", "separate"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    model: Path
    text: Path
    lexicon: Path
    steps: int
    batch: int
    seq_len: int
    held_out: float
    lr: float
    device: str


@dataclass(frozen=True, kw_only=True)
class Contender:
    forms: Which
    line_breaks: LineBreaks = "keep"

    @property
    def name(self) -> str:
        return "untouched model" if self.forms == "none" else f"{self.forms}, lines {self.line_breaks}"


def contenders(*, printed: bool) -> list[Contender]:
    lines: list[LineBreaks] = ["keep", "join"] if printed else ["keep"]
    kinds: list[Which] = ["one", "shared", "separate"]
    return [Contender(forms=forms, line_breaks=how) for how in lines for forms in kinds] + [Contender(forms="none")]


def run(setting: Setting, contender: Contender, seed: int, scratch: Path) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    started = time.monotonic()
    base, corpus = load_tokenizer(setting.model), open_corpus([setting.text])
    words = read_lexicon(setting.lexicon).words
    model: Any = AutoModelForCausalLM.from_pretrained(setting.model, dtype=torch.float32)
    model = model.to(setting.device).eval()
    learner: Any
    if contender.forms == "none":
        tokenizer, learner = base, Untrained(model, len(base))
    else:
        lines = as_printed(corpus, contender.line_breaks)
        forms = frozenset() if contender.forms == "one" else forms_in(stretches(corpus, lines), words)
        made = inject(base, words, directory=scratch / "t", forms=forms, shared=contender.forms == "shared")
        tokenizer, learner = made.tokenizer, Ours(model, start_of(model, made, base, seed))
    data = prepare(
        corpus,
        tokenizer,
        seq_len=setting.seq_len,
        fraction=setting.held_out,
        seed=seed,
        line_breaks=contender.line_breaks,
    )
    regions = regions_of(corpus, words, setting.held_out, seed)
    before = per_byte(learner, data.held_out, len(regions), setting.device)
    if contender.forms != "none":
        for step, (inputs, targets) in enumerate(batches(setting, data, seed)):
            learner.step(inputs, targets, cosine(step, setting.steps, setting.lr, max(1, setting.steps // 20)))
    after = per_byte(learner, data.held_out, len(regions), setting.device)
    return {
        "contender": contender.name,
        "seed": seed,
        "new_ids": 0 if contender.forms == "none" else made.id_map.n_new,
        "before": bits(before, regions),
        "after": bits(after, regions),
        "seconds": round(time.monotonic() - started, 1),
        "nats": after[0],
    }


def start_of(model: Any, made: Injection, base: Any, seed: int) -> Start:
    """As a P1 job on a tied model begins."""
    id_map, weight = made.id_map, model.get_input_embeddings().weight
    rows = {"rows": initial_rows(id_map, weight, method="subwords", seed=seed, tokenizer=base)}
    if id_map.forms:
        offsets, _ = form_offsets(weight.detach()[: id_map.first_new_id], base.get_vocab(), id_map.scheme)
        rows["rows.forms"] = offsets
    if not id_map.shared:
        rows = write_out(rows, id_map)
    return Start(
        first_new_id=id_map.first_new_id,
        input_rows=rows["rows"],
        output_rows=rows["rows"],
        rows="shared",
        optimizer="adafactor",
        only_seen=True,
        shared=SharedForms(words=words_with(id_map), input_offsets=rows["rows.forms"]) if id_map.shared else None,
    )


def batches(setting: Setting, data: Data, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for step in range(setting.steps):
        arrays = data.blocks.batch(blocks_of_step(step, setting.batch, len(data.blocks), seed))
        inputs, targets = (torch.from_numpy(array).to(setting.device) for array in arrays)
        yield inputs, targets


def regions_of(corpus: Corpus, words: Any, fraction: float, seed: int) -> npt.NDArray[np.int8]:
    """Of each held-out byte 0, or 1 and more for the form of the word whose byte it is, the space before included."""
    finder, order = Finder(words), list(Form)
    chosen = choose(corpus.pieces(), fraction=fraction, seed=seed, place="text")
    parts = []
    for span, text in spans_of_text(corpus.pieces(), chosen):
        if not span.held_out:
            continue
        ends = np.concatenate([[0], np.cumsum([len(letter.encode()) for letter in text])])
        part = np.zeros(int(ends[-1]), dtype=np.int8)
        for place in finder.find(text):
            start = place.start - (place.start > 0 and text[place.start - 1] in " \n")
            part[ends[start] : ends[place.end]] = 1 + order.index(place.form)
        parts.append(part)
    return np.concatenate(parts)


def bits(measured: tuple[npt.NDArray[Any], npt.NDArray[Any]], regions: npt.NDArray[np.int8]) -> dict[str, float | None]:
    nats, covered = measured
    parts = {"all": regions >= 0, "words": regions > 0, "other text": regions == 0}
    parts |= {str(form): regions == 1 + number for number, form in enumerate(Form)}
    return {name: mean_bits(nats, covered & part) for name, part in parts.items()}


def interval(nats: npt.NDArray[Any], other: npt.NDArray[Any]) -> list[float]:
    """95 % of the difference in bits per byte, by drawing stretches of text again."""
    size = len(nats) // STRETCH * STRETCH
    change = (nats[:size] - other[:size]).reshape(-1, STRETCH).mean(axis=1) / np.log(2)
    draws = np.random.default_rng(0).choice(change, size=(DRAWS, len(change))).mean(axis=1)
    return [round(float(value), 5) for value in np.quantile(draws, [0.025, 0.975])]


def table(rows: list[dict[str, Any]]) -> str:
    names = ["all", "words", "other text", *map(str, Form)]
    head = ["contender", "seed", "new ids", *names, "all, against the first"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        figures = [f"{number(row['before'][name])} → {number(row['after'][name])}" for name in names]
        low, high = row["interval"]
        cells = [row["contender"], str(row["seed"]), f"{row['new_ids']:,}", *figures, f"{low:+.4f} to {high:+.4f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def in_lines(text: Path, width: int, folder: Path) -> Path:
    """The text as a printer would have broken it."""
    out = folder / "printed.txt"
    paragraphs = text.read_text(encoding="utf-8").split("\n\n")
    out.write_text("\n\n".join(textwrap.fill(one, width, break_on_hyphens=False) for one in paragraphs))
    return out


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.forms", description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--lexicon", type=Path)
    parser.add_argument("--width", type=int, help="break the text in lines of so many characters")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq-len", type=int, default=64)
    parser.add_argument("--held-out", type=float, default=0.03)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--only", nargs="*", help="contenders whose name holds one of these")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=RESULTS / "forms.json")
    asked = parser.parse_args(argv)
    found = materials(default_cache())
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        text = asked.text or found.text_path
        setting = Setting(
            model=asked.model or found.model_dir,
            text=in_lines(text, asked.width, Path(scratch)) if asked.width else text,
            lexicon=asked.lexicon or found.lexicon_path,
            steps=asked.steps,
            batch=asked.batch,
            seq_len=asked.seq_len,
            held_out=asked.held_out,
            lr=asked.lr,
            device=asked.device,
        )
        for seed in asked.seeds:
            first: npt.NDArray[Any] | None = None
            for contender in contenders(printed=bool(asked.width)):
                if asked.only and not any(part in contender.name for part in asked.only):
                    continue
                with tempfile.TemporaryDirectory(dir=scratch) as folder:
                    row = run(setting, contender, seed, Path(folder))
                nats = row.pop("nats")
                first = nats if first is None else first
                rows.append(row | {"interval": interval(nats, first)})
                print(table(rows[-1:]).splitlines()[-1], flush=True)
                about = {key: str(value) for key, value in vars(setting).items()}
                about |= {"width": asked.width, "date": time.strftime("%Y-%m-%d"), "machine": platform.machine()}
                write_json(asked.out, {"setting": about, "versions": versions(), "rows": rows})
    print(table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
