"""Draw text from a causal LM, token by token, from a generator of its own: the same seed gives the same text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wake2vec.contract.models.families import longest


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn. A temperature of 0 takes the likeliest; top_k = 0 and top_p = 1 cut nothing off."""

    temperature: float = 0.9
    top_p: float = 0.92
    top_k: int = 50
    repetition_penalty: float = 1.15
    max_new_tokens: int = 200


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """What was drawn: the continuation without its prompt, and what each token of it cost."""

    text: str
    ids: tuple[int, ...]
    nats: tuple[float, ...]  # surprisal of each token under the model itself, before any cutting off
    ended: str  # length, end, asked (to stop), not finite (logits)

    @property
    def mean_surprisal(self) -> float | None:
        return sum(self.nats) / len(self.nats) if self.nats else None


def continue_text(
    model: Any,
    tokenizer: Any,
    prompt: str,
    sampling: Sampling,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    should_stop: Callable[[], bool] = lambda: False,
) -> Continuation:
    """As `sample`, with what each token cost. No global random state is read or changed."""
    limit = longest(model.config.to_dict())
    start = _prompt_ids(tokenizer, prompt)[-(limit or 0) :]
    ids, nats, ended, cache = list(start), [], "length", None
    generator = torch.Generator().manual_seed(seed)
    ends = _end_ids(model, tokenizer)
    inputs = start
    with _inference(model):
        for _ in range(sampling.max_new_tokens):
            if limit is not None and len(ids) > limit:
                break  # a table of positions has no more
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
    return Continuation(text=text, ids=tuple(ids[len(start) :]), nats=tuple(nats), ended=ended)


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
