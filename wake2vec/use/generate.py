"""Write text with a trained model: the same checkpoint, prompt and seed give the same text."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from wake2vec.contract.errors import GpuBusy
from wake2vec.contract.files import read_json
from wake2vec.contract.lock import hold_lock
from wake2vec.contract.manifest import saved_steps
from wake2vec.contract.options import GenerateOptions
from wake2vec.contract.order import Order
from wake2vec.contract.rundir import RunDir
from wake2vec.contract.spec import TrainingSpec
from wake2vec.model.device import quiet_libraries, this_device
from wake2vec.show.overlap import longest_overlap
from wake2vec.show.samples import SampleRow, read_samples, sample_text, write_sample_rows
from wake2vec.use.sampling import Continuation, Sampling, continue_text

# the battery: the first ones come first where a job asks for few samples
TEMPERATURES = (0.9, 0.7, 1.1, 0.5, 1.0, 1.2, 0.8)


def write_samples(
    run: RunDir,
    model: Any,
    tokenizer: Any,
    job: TrainingSpec,
    step: int,
    *,
    first_new_id: int,
    device: str | torch.device = "cpu",
    corpus: str | None = None,
    max_new_tokens: int = 200,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Write the job's sample texts at `step` to eval/sample_generations.txt; returns that path.

    Each text is kept as it ends, so a cut costs one of them, and what is there already is not drawn again.
    Without `corpus` the texts that the order names are read; where they are gone, no overlap is told.
    """
    corpus = read_corpus(run) if corpus is None else corpus
    rows = read_samples(run)
    seed = job.train.seed
    for number in range(job.evaluate.samples):
        sampling = Sampling(temperature=TEMPERATURES[number % len(TEMPERATURES)], max_new_tokens=max_new_tokens)
        asked = (step, number, job.evaluate.prompt, seed + number, asdict(sampling))
        if any((row.step, row.number, row.prompt, row.seed, dict(row.sampling)) == asked for row in rows):
            continue
        text = continue_text(
            model, tokenizer, job.evaluate.prompt, sampling, seed=seed + number, device=device, should_stop=should_stop
        )
        if text.ended == "asked":
            break
        row = describe(text, step, number, job.evaluate.prompt, seed + number, sampling, first_new_id, corpus)
        rows = [old for old in rows if (old.step, old.number) != (step, number)] + [row]
        write_sample_rows(run, rows)
    return write_sample_rows(run, rows)


def describe(
    text: Continuation,
    step: int,
    number: int,
    prompt: str,
    seed: int,
    sampling: Sampling,
    first_new_id: int,
    corpus: str | None,
) -> SampleRow:
    """A text with what is to be known of it: new words, memorised stretches, surprisal."""
    overlap = longest_overlap(text.text, corpus) if corpus is not None else None
    return SampleRow(
        step=step,
        number=number,
        prompt=prompt,
        seed=seed,
        sampling=asdict(sampling),
        text=text.text,
        ended=text.ended,
        tokens=len(text.ids),
        new_tokens=sum(id >= first_new_id for id in text.ids),
        mean_surprisal=text.mean_surprisal,
        overlap_words=overlap.words if overlap else None,
        overlap=overlap.text if overlap else None,
    )


def read_corpus(run: RunDir) -> str | None:
    """The job's corpus, from the inputs that its order names; None where they are not at hand."""
    try:
        order = Order.model_validate(read_json(run.order))
        paths = [Path(order.inputs_folder) / item.sha256 for item in order.inputs if item.role == "corpus"]
        return "\n".join(path.read_text("utf-8") for path in paths) if paths else None
    except (ValueError, OSError):
        return None


def generate(run: RunDir, asked: GenerateOptions, device: torch.device) -> Iterator[SampleRow]:
    """The texts that are asked for, each as it is ready. Raises Wake2vecError."""
    from wake2vec.phases.identity import trained_order
    from wake2vec.use.assemble import assemble

    order = trained_order(run)
    built = assemble(run, order, newest(run, asked.step), device)
    corpus = read_corpus(run)
    prompts = typed() if asked.chat else [order.job.evaluate.prompt if asked.prompt is None else asked.prompt]
    sampling = Sampling(
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        repetition_penalty=asked.repetition_penalty,
        max_new_tokens=asked.tokens,
    )
    for number, prompt in enumerate(prompt for prompt in prompts for _ in range(asked.count)):
        seed = asked.seed + number
        text = continue_text(built.model, built.tokenizer, prompt, sampling, seed=seed, device=device)
        yield describe(text, built.step, number, prompt, seed, sampling, built.first_new_id, corpus)


def newest(run: RunDir, step: str) -> int | str:
    """The step that is asked for; "newest" is that of the newest checkpoint here, or the result where none is left."""
    found: int | str = int(step) if step.isdecimal() else step
    return next(iter(saved_steps(run)), "final") if found == "newest" else found


def device_of(asked: str | None) -> torch.device:
    return torch.device(asked) if asked else this_device()


def typed() -> Iterator[str]:
    """What a person types, a line each, until an empty one."""
    print("write how a text begins; an empty line ends", file=sys.stderr, flush=True)
    for line in sys.stdin:
        if not line.strip():
            return
        yield line.rstrip("\n")


def run(options: GenerateOptions) -> None:
    quiet_libraries()
    directory = RunDir(root=options.run)
    device = device_of(options.device)
    with card_to_itself(directory, device):
        for row in generate(directory, options, device):
            text = json.dumps(asdict(row), ensure_ascii=False) if options.as_json else sample_text(row) + "\n"
            print(text, flush=True)


@contextmanager
def card_to_itself(run: RunDir, device: torch.device) -> Iterator[None]:
    """Beside a trainer on the same card, a text could cost it its memory. Raises GpuBusy."""
    table = read_json(run.order)
    lock = table.get("gpu_lock") if isinstance(table, dict) else None
    if device.type != "cuda" or not lock:
        yield
        return
    try:
        with hold_lock(Path(lock), {"generate": str(run.root)}):
            yield
    except GpuBusy as error:
        raise GpuBusy(f"{error}; wait for it, or use --device cpu") from error
