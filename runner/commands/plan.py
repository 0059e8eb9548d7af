"""plan: memory and time of a job on a card, before either is spent."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from runner import figures
from runner.errors import RunnerError
from runner.forecast import Forecast, forecast, forecast_layers, load_of
from runner.jobfile.reach import new_ids
from runner.jobfile.read import read_job
from runner.machine.session import PRIOR_MINUTES
from wake2vec.contract.budget import CARDS, Card, Workload
from wake2vec.contract.errors import Fault, OutOfMemory, SpecError
from wake2vec.contract.files import counted
from wake2vec.contract.models.families import undealt
from wake2vec.contract.models.model_shapes import SHAPES, ModelShape, known_shape, shape_of_config
from wake2vec.contract.plan import Plan
from wake2vec.contract.spec import CommandSpec, JobSpec, TrainingSpec
from wake2vec.contract.tables import VocabTable

PARTS = {
    "body": "frozen body",
    "head": "published head",
    "embedding": "published embedding",
    "rows": "rows of new words",
    "adapters": "adapters",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "kept": "kept for the backward pass",
    "working": "work in progress",
}


def card_name(text: str) -> str:
    """`2 x T4`, `RTX 3090` and `geforce-rtx-4090` as the table has them; of several cards a job trains on one."""
    bare = re.sub(r"[\s_]|nvidia|geforce|tesla|-(?=rtx|\d{4}$)", "", text.lower()).strip("-")
    bare = re.sub(r"^\d+x(?=[a-z])|(?<=[a-z]\d)x\d+$", "", bare)
    return f"rtx{bare}" if re.fullmatch(r"[34]090", bare) else bare


def run(files: Sequence[Path], *, gpu: str, new_words: int | None, as_json: bool, cards: int | None = None) -> None:
    """Raises SpecError, RunnerError for an unknown card or shape, OutOfMemory when a job fits no way."""
    card = CARDS.get(card_name(gpu))
    if card is None:
        raise RunnerError(f"--gpu {gpu}: not known; known are {', '.join(CARDS)}")
    found: list[tuple[TrainingSpec, list[Forecast], Words]] = []
    for file in files:
        spec = read_job(file)
        if isinstance(spec, CommandSpec):
            raise SpecError(str(file), [Fault(key="phase", problem="nothing can be foretold of a program of your own")])
        words = words_of(spec, file, new_words)
        share = cards or (1 if spec.train.cards == "auto" else spec.train.cards)
        shape = shape_of(spec, file)
        if fault := _unshared(spec, shape, share):
            raise SpecError(str(file), [fault])
        found.append((spec, ways(spec, load_of(spec, shape, words.count, words.row_bytes), card, share), words))
    if as_json:
        print(json.dumps([_as_json(*one) for one in found], indent=1))
    else:
        for each in found:
            _show(*each)
    if misfits := [job.name for job, each, _ in found if not each[0].fits]:
        remedy = 'try a larger --gpu, more --cards, load = "nf4" or a smaller seq_len'
        raise OutOfMemory(f"{', '.join(misfits)}: no plan fits a {card.name.upper()}; {remedy}")


def _unshared(spec: TrainingSpec, shape: ModelShape, cards: int) -> Fault | None:
    """Why a job cannot be dealt to so many cards."""
    if spec.train.spread != "layers":
        problem = f"{cards} cards cannot share the {spec.train.batch} blocks of a step"
        return Fault(key="train.batch", problem=problem) if cards > spec.train.batch else None
    if cards > shape.layers:
        return Fault(key="train.cards", problem=f"{cards} cards for the {shape.layers} layers of {shape.name}")
    if cards > 1 and (why := undealt({"model_type": shape.family}, ())):
        return Fault(key="train.spread", problem=f"{why}; its layers cannot be dealt out to several cards")
    return None


def ways(spec: TrainingSpec, load: Workload, card: Card, cards: int) -> list[Forecast]:
    """How the job can run on so many cards, first the way that it would take."""
    stays_whole = cards > load.shape.layers or undealt({"model_type": load.shape.family}, ())
    if cards == 1 or stays_whole or (spec.lora and spec.lora.train == "all"):
        return [forecast(spec, load, card, cards)]
    layers = forecast_layers(spec, load, card, cards)
    if cards > spec.train.batch:
        return [layers]
    samples = forecast(spec, load, card, cards)
    asked = spec.train.spread
    takes_layers = asked == "layers" or (asked == "auto" and not is_whole(samples))
    return [layers, samples] if takes_layers else [samples, layers]


def is_whole(one: Forecast) -> bool:
    """Whether one card holds the model with the context whole."""
    return one.fits and one.plan.block_splits == 1


def shape_of(spec: TrainingSpec, file: Path) -> ModelShape:
    base = spec.model.base
    if (shape := known_shape(base)) is not None:
        return shape
    config = file.parent / Path(base).expanduser() / "config.json"
    try:
        return shape_of_config(base, json.loads(config.read_text("utf-8")))
    except (OSError, ValueError, KeyError) as error:
        problem = (
            f"the shape of {base} is not known here; known are {', '.join(SHAPES)}, and folders with a config.json"
        )
        raise SpecError(str(file), [Fault(key="model.base", problem=problem)]) from error


@dataclass(frozen=True, kw_only=True)
class Words:
    """The most rows that can be added, and how they are held."""

    count: int
    dtype: str = "fp32"
    row_bytes: int = 4  # of a number


def words_of(spec: JobSpec, file: Path, count: int | None = None) -> Words:
    """P2 and P3 ask the file of the job before them, which is not needed where the words are counted already."""
    if spec.vocab is not None:
        count = count_words(spec, spec.vocab, file) if count is None else count
        return Words(count=count, dtype=spec.vocab.dtype, row_bytes=spec.vocab.row_bytes)
    source = file.parent / f"{spec.after}.toml"
    if source.is_file():
        return words_of(read_job(source), source, count)
    if count is None:
        raise SpecError(str(file), [Fault(key="after", problem=f"{source} is not there; say --new-words N")])
    return Words(count=count)


def count_words(spec: JobSpec, vocab: VocabTable, file: Path) -> int:
    """Words, and forms with rows of their own."""
    path = file.parent / Path(vocab.lexicon).expanduser()
    try:
        words = list(dict.fromkeys(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()))
        if vocab.forms != "separate" or spec.data is None:
            return len(words)
        return new_ids(vocab, words, [file.parent / Path(name).expanduser() for name in spec.data.corpora])
    except (OSError, ValueError) as error:
        problem = f"{path}: cannot be read; say --new-words N"
        raise SpecError(str(file), [Fault(key="vocab.lexicon", problem=problem)]) from error


def _as_json(spec: TrainingSpec, each: Sequence[Forecast], words: Words) -> dict[str, Any]:
    one, *others = each
    about = {"name": spec.name, "gpu": one.card.name, "new_words": words.count, "rows_in": words.dtype}
    return about | _figures(one) | {"other_way": _figures(others[0]) if others else None}


def _figures(one: Forecast) -> dict[str, Any]:
    return {
        "fits": one.fits,
        "needed_gib": round(one.needed_gib, 3),
        "card_gib": one.card.memory_gib,
        "parts_bytes": asdict(one.parts),
        "plan": one.plan.to_dict(),
        "cards": one.cards,
        "spread": "layers" if one.layers else "samples",
        "layers": list(one.layers),
        "waiting": round(one.waiting, 3),
        "exchange_seconds": round(one.exchange_seconds, 3),
        "step_seconds_at_least": round(one.step_seconds, 3),
        "steps": one.steps,
        "hours_at_least": None if one.hours is None else round(one.hours, 3),
    }


def _show(spec: TrainingSpec, each: Sequence[Forecast], words: Words) -> None:
    console, (one, *others) = Console(highlight=False), each
    new = f"up to {words.count:,} new words" + ("" if words.dtype == "fp32" else f", their rows in {words.dtype}")
    console.print(f"{spec.name}: {spec.phase.upper()} of {spec.model.base} with {new}", style="bold")
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, words_for_it in PARTS.items():
        if size := getattr(one.parts, name):
            table.add_row(words_for_it, figures.size(size))
    table.add_row("CUDA and fragmentation", figures.size(one.card.overhead_gib * 2**30))
    table.add_row("[bold]all together[/]", f"[bold]{figures.size(one.needed_gib * 2**30)}[/]")
    console.print(table)
    console.print(_told(one), style="green" if one.fits else "bold red")
    time = _time(one)
    if one.hours is not None and one.steps is not None:
        sessions = max(1, math.ceil(one.hours * 60 / PRIOR_MINUTES))
        time += f", {figures.hours(one.hours * 3600)} for {one.steps:,} steps"
        time += f": {counted(sessions, 'session')} of {PRIOR_MINUTES:.0f} min"
    console.print(time)
    for other in others:
        times = other.step_seconds / one.step_seconds
        compared = f"{times:.3g} times as long" if other.fits else f"it needs {figures.size(other.needed_gib * 2**30)}"
        way = "layers dealt out" if other.layers else "the model on each card"
        console.print(f"or, with {way}: {_told(other)}; {_time(other)}, {compared}")
    console.print()


def _told(one: Forecast) -> str:
    each = "a" if one.cards == 1 else f"each of {one.cards}"
    dealt = f" for {' + '.join(map(str, one.layers))} layers" if one.layers else ""
    card = f"{one.card.name.upper()} with {figures.size(one.card.memory_gib * 2**30)}"
    return f"{'fits' if one.fits else 'does not fit'} {each} {card}{dealt}: {_plan(one.plan)}"


def _time(one: Forecast) -> str:
    seconds = one.step_seconds
    time = f"at least {seconds:.2g} s a step" if seconds >= 0.01 else f"at least {1e3 * seconds:.2g} ms a step"
    if one.layers:
        return f"{time}, {one.exchange_seconds:.2g} s of them for hidden states, and cards wait {one.waiting:.0%} of it"
    if one.cards > 1:
        return f"{time}, {one.exchange_seconds:.2g} s of them to add up the cards' gradients"
    return time


def _plan(plan: Plan) -> str:
    text = str(plan)
    return text + " (a shorter context)" if plan.block_splits > 1 else text
