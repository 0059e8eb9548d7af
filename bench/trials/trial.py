"""One trial: everything that a run varies, and the run itself."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bench.trials.chat import Chat
from bench.trials.held_out import Ints, per_byte
from bench.trials.lab import Body, Cut, Cutting, Lab, order
from bench.trials.learners import RIVALS, Adapted, Learner, Ours, Start, Untrained, Way, cosine
from bench.trials.levers import ByFrequency, Lever, Pull, Spelling, Stored
from bench.trials.regression import fit_output
from wake2vec.contract.tables import LoraTable
from wake2vec.data.control import english
from wake2vec.model.forms import write_out
from wake2vec.model.new_rows import SharedForms, is_tied
from wake2vec.model.precision import DTYPES
from wake2vec.vocab.calibrate import calibrate_head
from wake2vec.vocab.initial import Method, initial_rows
from wake2vec.vocab.offsets import form_offsets, words_with

WARMUP = 0.05
CURVE = 20  # points of the training curve
FORWARD = 0.4  # of a training step's work on the same text: a body's forward pass and one over the head
Held = Literal["fp32", "fp16", "bf16", "bf16 drawn"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A way, where it starts, and how long it trains. `lr` is the peak rate of rows; where adapters train, of these."""

    lab: str = "smollm2"
    cut: Cut = field(default_factory=Cut)
    way: Way = "ours"
    init: Method = "subwords"
    output: Method | None = None  # start of output rows where they are their own
    scale: float = 1.0
    rows: Literal["auto", "shared", "separate", "input"] = "auto"
    optimizer: Literal["adafactor", "adamw"] = "adafactor"
    update: Literal["all", "seen"] = "seen"
    calibrate: bool = False
    own_steps: bool = False
    lr: float = 5e-3
    steps: int = 300
    batch: int = 8
    seed: int = 42
    body: Body = "fp32"
    held: Held = "fp32"  # in what the rows are held
    rank: int = 8  # of adapters
    rows_lr: float = 5e-3  # of rows where adapters train too
    beside: bool = False  # rows train beside adapters, else before them
    pull: float = 0.0
    by_frequency: float = 0.0
    spelling: float = 0.0
    rare_twice: int = 0  # blocks with a word that is met so often at most stand twice in an epoch
    regress: Literal["no", "first", "last"] = "no"  # on as much text as fits the work of the steps it stands for
    prior: float = 10.0
    start_too: bool = False  # measured before the first step as well
    chat: bool = False
    keep_rows: bool = False

    @property
    def key(self) -> str:
        """What tells this trial from others: all that is not as usual."""
        plain = asdict(Trial())
        return json.dumps({name: value for name, value in asdict(self).items() if value != plain[name]})


def from_key(key: str) -> Trial:
    named = json.loads(key)
    if "cut" in named:
        named["cut"] = Cut(**named["cut"])
    assert set(named) <= {one.name for one in fields(Trial)}
    return Trial(**named)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a trial left: figures for a file, and its new rows where they are to be compared."""

    figures: dict[str, Any]
    rows: dict[str, Tensor]


def run(lab: Lab, trial: Trial) -> Outcome:
    began = time.monotonic()
    cutting = lab.cutting(trial.cut)
    model = lab.model(trial.body)
    learner = learner_of(lab, trial, cutting, model)
    figures: dict[str, Any] = {"new_ids": cutting.id_map.n_new if cutting.id_map else 0}
    chat = Chat(lab) if trial.chat else None
    if chat:
        figures["chat"] = [chat.figures(learner)]
    if trial.start_too and trial.way != "none":
        figures["before"] = measure(lab, trial, cutting, learner)
    start = rows_of(learner)
    if trial.way != "none":
        rate = trial.rows_lr if isinstance(learner, Ours) and trial.way == "lora" else trial.lr
        figures["curve"] = train(lab, trial, cutting, learner, rate)
    if trial.way == "lora" and isinstance(learner, Ours):
        figures["after_rows"] = measure(lab, trial, cutting, learner)
        if chat:
            figures["chat"].append(chat.figures(learner))
        learner = adapted(learner, trial)
        figures["curve_of_adapters"] = train(lab, trial, cutting, learner, trial.lr)
    if trial.regress == "last":
        regress(learner, trial, cutting)
    if chat:
        figures["chat"].append(chat.figures(learner))
    figures["after"] = measure(lab, trial, cutting, learner)
    if isinstance(learner, Ours):
        figures |= {name: value for lever in learner.levers for name, value in lever.figures().items()}
        figures["moved"] = moved(start, rows_of(learner))
    figures["graphed"] = getattr(getattr(learner, "backward", None), "graph", None) is not None
    figures["seconds"] = round(time.monotonic() - began, 1)
    kept = {f"start.{name}": rows for name, rows in start.items()} | rows_of(learner) if trial.keep_rows else {}
    return Outcome(figures=figures, rows=kept)


def learner_of(lab: Lab, trial: Trial, cutting: Cutting, model: Any) -> Learner:
    if cutting.id_map is None:
        alone = Untrained(model, len(lab.base))
        return alone if trial.way == "none" else adapted(alone, trial)
    start = start_of(lab, trial, cutting, model)
    if trial.way in RIVALS:
        rival: Learner = RIVALS[trial.way](model, start)
        return rival
    ours = Ours(model, start, levers(lab, trial, cutting, model))
    if trial.calibrate:
        calibrate_head(model, ours.installed.head, cutting.data.blocks, first_new_id=start.first_new_id)
    if trial.regress == "first":
        regress(ours, trial, cutting)
    return adapted(ours, trial) if trial.way == "lora" and trial.beside else ours


def regress(learner: Learner, trial: Trial, cutting: Cutting) -> None:
    assert isinstance(learner, Ours)
    assert learner.installed.mode == "separate", "rows that are read as inputs too cannot be fitted alone"
    blocks = cutting.data.blocks
    many = min(len(blocks), round(trial.steps / (1 - FORWARD)) * trial.batch)
    index = np.arange(many) * len(blocks) // many  # spread evenly
    fit_output(learner.model, learner.installed.head, blocks, index, prior=trial.prior)


def adapted(base: Any, trial: Trial) -> Adapted:
    table = LoraTable(r=trial.rank, alpha=2.0 * trial.rank)
    return Adapted(base, table, trial.seed, rows_rate=trial.rows_lr / trial.lr if trial.beside else 0.0)


def start_of(lab: Lab, trial: Trial, cutting: Cutting, model: Any) -> Start:
    """As a P1 job begins."""
    id_map = cutting.id_map
    assert id_map is not None, "there are words"
    tied = is_tied(model)
    weights = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    rows: dict[str, Tensor] = {}
    for side, weight, method in zip("io", weights, (trial.init, trial.output or trial.init), strict=True):
        # a tied model has one matrix: the same words start at the same rows on both sides
        part: Literal["input", "output"] = "output" if side == "o" and not tied else "input"
        rows[side] = initial_rows(
            id_map, weight, method=method, seed=trial.seed, tokenizer=lab.base, part=part, scale=trial.scale
        )
        if id_map.forms:
            published = weight.detach()[: id_map.first_new_id]
            rows[f"{side}.forms"] = form_offsets(published, lab.base.get_vocab(), id_map.scheme)[0]
    if not id_map.shared:
        rows = write_out(rows, id_map)
    return Start(
        first_new_id=id_map.first_new_id,
        input_rows=rows["i"],
        output_rows=rows["o"],
        rows=trial.rows if trial.rows != "auto" else ("shared" if tied else "separate"),
        optimizer=trial.optimizer,
        only_seen=trial.update == "seen",
        own_steps=trial.own_steps,
        shared=SharedForms(words=words_with(id_map), input_offsets=rows["i.forms"], output_offsets=rows["o.forms"])
        if id_map.shared
        else None,
    )


def levers(lab: Lab, trial: Trial, cutting: Cutting, model: Any) -> list[Lever]:
    id_map, found = cutting.id_map, list[Lever]()
    assert id_map is not None, "there are words"
    if trial.pull:
        found.append(Pull(trial.pull))
    if trial.by_frequency:
        counts = np.zeros(id_map.n_ids, dtype=np.int64)
        for index in indices(trial, cutting):
            counts += np.bincount(cutting.data.blocks.batch(index)[1].ravel(), minlength=len(counts))
        found.append(ByFrequency(trial.by_frequency, torch.from_numpy(counts[id_map.first_new_id :]).to(lab.device)))
    if trial.spelling:
        published = model.get_input_embeddings().weight.detach()[: id_map.first_new_id]
        tokens = [lab.base.decode([place]) for place in range(min(id_map.first_new_id, len(lab.base)))]
        words = [entry.word for entry in id_map.entries if entry.row is not None]
        found.append(Spelling(trial.spelling, published, tokens, words))
    if trial.held != "fp32":
        name, _, drawn = trial.held.partition(" ")
        found.append(Stored(DTYPES[name], drawn=bool(drawn), seed=trial.seed, device=lab.device))
    return found


def train(lab: Lab, trial: Trial, cutting: Cutting, learner: Learner, peak: float) -> list[float]:
    """All steps at this peak rate; the training loss in nats per token over stretches of them."""
    warmup, losses = max(1, round(WARMUP * trial.steps)), []
    for step, (inputs, targets) in enumerate(lab.batches(indices(trial, cutting), cutting.data.blocks)):
        losses.append(learner.step(inputs, targets, cosine(step, trial.steps, peak, warmup)))
    parts = np.array_split(torch.stack(losses).float().cpu().numpy(), min(CURVE, trial.steps))
    return [round(float(part.mean()), 4) for part in parts]


def indices(trial: Trial, cutting: Cutting) -> Any:
    twice = rare(cutting, trial.rare_twice) if trial.rare_twice else None
    return order(cutting.data.blocks, trial.steps, trial.batch, trial.seed, twice)


def rare(cutting: Cutting, most: int) -> Ints:
    """Blocks with a new word that stands in the whole training text so often at most."""
    assert cutting.id_map is not None, "there are words"
    blocks, first = cutting.data.blocks, cutting.id_map.first_new_id
    seldom = blocks.occurrences(cutting.id_map.n_ids) <= most
    seldom[:first] = False
    return np.array([place for place in range(len(blocks)) if seldom[blocks.block(place)[1]].any()], dtype=np.int64)


def measure(lab: Lab, trial: Trial, cutting: Cutting, learner: Learner) -> dict[str, Any]:
    """Nats and bytes of the held-out text by span and form, of words by how often they were met, and of English."""
    there = lab.held_out
    nats, covered = per_byte(learner.nll, cutting.data.held_out, len(there.span), lab.device)
    size = covered.astype(np.float64)
    met = lab.met(steps=trial.steps, batch=trial.batch, seq_len=trial.cut.seq_len, seed=trial.seed)
    found: dict[str, Any] = {
        "nats": np.round(there.by_form(nats), 3).tolist(),
        "bytes": there.by_form(size).astype(int).tolist(),
        "met_nats": np.round(there.by_met(nats, met), 3).tolist(),
        "met_bytes": there.by_met(size, met).astype(int).tolist(),
    }
    for name, cutter in (("english", cutting.tokenizer), ("english_base", lab.base)):
        windows = english(cutter, trial.cut.seq_len)
        length = int((windows.places + windows.bytes).max())
        alone = name == "english_base"

        def nll(inputs: Tensor, targets: Tensor, alone: bool = alone) -> Tensor:
            return learner.nll(inputs, targets, published_alone=alone)

        control, asked = per_byte(nll, windows, length, lab.device)
        found[name] = round(float(control[asked].sum() / asked.sum() / np.log(2)), 5)
    return found


def rows_of(learner: Learner) -> dict[str, Tensor]:
    """New rows as they are now, on the CPU."""
    if not isinstance(learner, Ours):
        return {}
    return {name: rows.detach().cpu().clone() for name, rows in learner.words().items()}


def moved(start: dict[str, Tensor], end: dict[str, Tensor]) -> float:
    """Mean over rows of how far they went, against how long they were."""
    shares = [(end[name] - start[name]).norm(dim=1) / start[name].norm(dim=1).clamp(min=1e-12) for name in start]
    return round(float(torch.cat(shares).mean()), 5)
