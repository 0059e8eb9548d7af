"""A model as a reader of text, trained or untouched: nats of each token, and of each byte of a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wake2vec.contract.order import Order
from wake2vec.contract.rundir import RunDir
from wake2vec.data.blocks import IGNORED, Windows, windows
from wake2vec.data.lines import Print
from wake2vec.data.permutation import Ints
from wake2vec.data.tokens import tokenise
from wake2vec.hopes.resampling import Doubles
from wake2vec.model.load import load_published
from wake2vec.model.loss import blocked_cross_entropy
from wake2vec.model.new_rows import published_head
from wake2vec.model.split_vocabulary import SplitHead
from wake2vec.use.sampling import Sampling, continue_text
from wake2vec.vocab.idmap import IdMap

AT_ONCE = 1024  # tokens


class AskedToStop(Exception):
    """Somebody wants the process to end: what is only looked at is left for another time."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A model with the tokenizer that it reads by."""

    model: Any
    head: SplitHead
    tokenizer: Any
    device: torch.device
    tick: Callable[[], None]  # between two pieces of work: a sign of life; raises AskedToStop
    bare: bool = False  # without the adapters that lie in the model

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self.model.eval()
        with torch.no_grad(), adapters_off(self.model, self.bare):
            yield

    def hidden(self, inputs: npt.NDArray[Any]) -> Tensor:
        """Last hidden states. [w, L] -> [w, L, d]"""
        self.tick()
        ids = torch.from_numpy(np.ascontiguousarray(inputs)).to(self.device)
        with self.at_work():
            found: Tensor = self.model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        return found

    def nats(self, inputs: Ints, targets: Ints) -> Doubles:
        """Of each target, 0 where nothing is asked. [w, L]"""
        found, many = [], max(1, AT_ONCE // inputs.shape[1])
        for first in range(0, len(inputs), many):
            hidden = self.hidden(inputs[first : first + many]).flatten(0, 1)
            asked = torch.from_numpy(targets[first : first + many].flatten()).to(hidden.device)
            with torch.no_grad():
                found.append(blocked_cross_entropy(hidden, self.head, asked).token_nll.double().cpu())
        return torch.cat(found).view(targets.shape).numpy()

    def go_on(self, prompt: str, sampling: Sampling, seed: int) -> str:
        """What the model writes behind a prompt."""

        def never() -> bool:
            self.tick()
            return False

        with self.at_work():
            return continue_text(
                self.model, self.tokenizer, prompt, sampling, seed=seed, device=self.device, should_stop=never
            ).text

    def windows(self, texts: Sequence[str], length: int, lines: Print | None = None) -> Windows:
        """The texts as this reader cuts them; every byte of each belongs to a token."""
        spans = [tokenise(self.tokenizer, text, "text", lines) for text in texts]
        sizes = [len(text.encode()) for text in texts]
        whole = [
            replace(span, byte_ends=np.append(span.byte_ends[:-1], size)) if len(span.ids) else span
            for span, size in zip(spans, sizes, strict=True)
        ]
        return windows(whole, length, place="text")

    def over_bytes(self, texts: Sequence[str], length: int, lines: Print | None = None) -> tuple[Doubles, Any]:
        """Nats of each byte of the texts, one behind the other, and which bytes were asked for. [bytes], [bytes]"""
        cut = self.windows(texts, length, lines)
        return spread(cut, self.nats(cut.inputs, cut.targets), sum(len(text.encode()) for text in texts))


def spread(cut: Windows, found: Doubles, size: int) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    """The nats of each token over the bytes that it stands for."""
    asked = cut.targets != IGNORED
    places, lengths = cut.places[asked], cut.bytes[asked]
    # the later pieces of one character stand for no byte of their own: they count on the byte before
    owners, lengths = np.where(lengths > 0, places, np.maximum(places - 1, 0)), np.maximum(lengths, 1)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    where = np.repeat(owners, lengths) + within
    nats, covered = np.zeros(size), np.zeros(size, dtype=bool)
    np.add.at(nats, where, np.repeat(found[asked] / lengths, lengths))
    covered[where] = True
    return nats, covered


@contextmanager
def adapters_off(model: Any, wanted: bool = True) -> Iterator[None]:
    """Within it the model is what it was before LoRA lay in it, to the bit."""
    layers = [part for part in model.modules() if wanted and hasattr(part, "lora_A")]
    trained = [(one, one.requires_grad) for part in layers for one in part.parameters()]
    for part in layers:
        part.enable_adapters(False)
    try:
        yield
    finally:
        for part in layers:
            part.enable_adapters(True)
        for parameter, trains in trained:
            parameter.requires_grad_(trains)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A trained model with the job that it comes from."""

    run: RunDir
    order: Order
    model: Any
    tokenizer: Any
    base_tokenizer: Any
    id_map: IdMap
    device: torch.device
    step: int
    tick: Callable[[], None] = lambda: None

    @property
    def trained(self) -> Reader:
        head = self.model.get_output_embeddings()
        return Reader(model=self.model, head=head, tokenizer=self.tokenizer, device=self.device, tick=self.tick)

    @cached_property
    def untouched(self) -> Reader:
        """The published model: the same weights without what was added, loaded again where they themselves moved."""
        if not self.moved_everything:
            head = self.model.get_output_embeddings().without_new()
            return replace(self.trained, head=head, tokenizer=self.base_tokenizer, bare=True)
        model, _ = load_published(self.order.training.model, self.device)
        head = published_head(model, self.id_map.first_new_id)
        return Reader(model=model, head=head, tokenizer=self.base_tokenizer, device=self.device, tick=self.tick)

    @property
    def moved_everything(self) -> bool:
        lora = self.order.training.lora
        return lora is not None and lora.train == "all"
