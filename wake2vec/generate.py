"""Write text with a trained model: the same checkpoint, prompt and seed give the same text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wake2vec.artefacts.overlap import longest_overlap
from wake2vec.artefacts.samples import SampleRow, read_samples, write_sample_rows
from wake2vec.rundir import RunDir, read_json
from wake2vec.spec import JobSpec, Order

# the battery: the first ones come first where a job asks for few samples
TEMPERATURES = (0.9, 0.7, 1.1, 0.5, 1.0, 1.2, 0.8)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn. A temperature of 0 takes the likeliest; top_k = 0 and top_p = 1 cut nothing off."""

    temperature: float = 0.9
    top_p: float = 0.92
    top_k: int = 50
    repetition_penalty: float = 1.15
    max_new_tokens: int = 200


@dataclass(frozen=True, kw_only=True)
class Text:
    """What was drawn: the continuation without its prompt, and what each token of it cost."""

    text: str
    ids: tuple[int, ...]
    nats: tuple[float, ...]  # surprisal of each token under the model itself, before any cutting off
    ended: str  # length, end, asked (to stop), not finite (logits)

    @property
    def mean_surprisal(self) -> float | None:
        return sum(self.nats) / len(self.nats) if self.nats else None


def sample(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    temperature: float = 0.9,
    top_p: float = 0.92,
    top_k: int = 50,
    repetition_penalty: float = 1.15,
    max_new_tokens: int = 200,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> str:
    """The continuation of `prompt`, without it."""
    sampling = Sampling(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=repetition_penalty,
        max_new_tokens=max_new_tokens,
    )
    return continue_text(model, tokenizer, prompt, sampling, seed=seed, device=device).text


def continue_text(
    model: Any,
    tokenizer: Any,
    prompt: str,
    sampling: Sampling,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    should_stop: Callable[[], bool] = lambda: False,
) -> Text:
    """As `sample`, with what each token cost. No global random state is read or changed."""
    start = _prompt_ids(tokenizer, prompt)
    ids, nats, ended, cache = list(start), [], "length", None
    generator = torch.Generator().manual_seed(seed)
    ends = _end_ids(model, tokenizer)
    inputs = start
    with _inference(model):
        for _ in range(sampling.max_new_tokens):
            if should_stop():
                ended = "asked"
                break
            logits, cache = _forward(model, inputs, cache, len(tokenizer), device)
            if not bool(torch.isfinite(logits).all()):
                ended = "not finite"
                break
            chance = float(torch.rand((), generator=generator, dtype=torch.float64))
            token = choose(logits, ids, sampling, chance)
            if token in ends:
                ended = "end"
                break
            nats.append(float(logits.logsumexp(0) - logits[token]))
            ids.append(token)
            inputs = [token]
    text = _continuation(tokenizer, start, ids)
    return Text(text=text, ids=tuple(ids[len(start) :]), nats=tuple(nats), ended=ended)


def choose(logits: Tensor, seen: Sequence[int], sampling: Sampling, chance: float) -> int:
    """The token at `chance` (0 to 1) of the distribution that is left after penalty, temperature, top-k and top-p.

    logits: [V], fp64. Penalty: Keskar et al., arXiv 1909.05858, on every id seen so far; nucleus: arXiv 1904.09751.
    """
    logits = logits.clone()
    before = torch.tensor(sorted(set(seen)), dtype=torch.long)
    if len(before):
        penalty, value = sampling.repetition_penalty, logits[before]
        logits[before] = torch.where(value > 0, value / penalty, value * penalty)
    if sampling.temperature == 0:
        return int(logits.argmax())
    count = min(sampling.top_k or len(logits), len(logits))
    best, token = torch.topk(logits / sampling.temperature, count)  # sorted, likeliest first
    share = torch.softmax(best, 0)
    kept = share.cumsum(0) - share < sampling.top_p  # what comes before it is not enough yet
    kept[0] = True
    reached = share[kept].cumsum(0)
    place = int(torch.searchsorted(reached, chance * float(reached[-1]), right=True))
    return int(token[min(place, len(reached) - 1)])


def _forward(
    model: Any, inputs: Sequence[int], cache: Any, n_tokens: int, device: str | torch.device
) -> tuple[Tensor, Any]:
    """Logits after everything so far, [V] fp64 on the CPU, and the cache to go on from.

    Ids that the tokenizer cannot decode, such as padding rows of the matrix, are left out.
    """
    batch = torch.tensor([list(inputs)], device=device)  # [1, new tokens]
    output = model(input_ids=batch, past_key_values=cache, use_cache=True)
    return output.logits[0, -1, :n_tokens].to("cpu", torch.float64), output.past_key_values


@contextmanager
def _inference(model: Any) -> Iterator[None]:
    """No dropout, no gradient, and the model's own mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    ids = list(tokenizer(prompt)["input_ids"])
    if ids:
        return ids
    # an empty prompt of a tokenizer that adds no start: something must stand before the first token
    first = next(id for id in (tokenizer.bos_token_id, tokenizer.eos_token_id, 0) if id is not None)
    return [int(first)]


def _end_ids(model: Any, tokenizer: Any) -> set[int]:
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, (list, tuple)) else [configured]
    return {int(id) for id in (*listed, tokenizer.eos_token_id) if id is not None}


def _continuation(tokenizer: Any, start: Sequence[int], ids: Sequence[int]) -> str:
    """Decoded together with the prompt, since a leading space may depend on what stands before."""
    whole = str(tokenizer.decode(ids, skip_special_tokens=True))
    prompt = str(tokenizer.decode(start, skip_special_tokens=True))
    rest = ids[len(start) :]
    return whole[len(prompt) :] if whole.startswith(prompt) else str(tokenizer.decode(rest, skip_special_tokens=True))


def write_samples(
    run: RunDir,
    model: Any,
    tokenizer: Any,
    job: JobSpec,
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
    seed = job.train.seed if job.train else 0
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
    text: Text,
    step: int,
    number: int,
    prompt: str,
    seed: int,
    sampling: Sampling,
    first_new_id: int,
    corpus: str | None,
) -> SampleRow:
    """A text with what is to be known of it: Wake words, memorised stretches, surprisal."""
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
