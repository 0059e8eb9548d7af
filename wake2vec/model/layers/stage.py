"""The layers of a model that one card holds, where a model is too large for one: the others are places without weights.

Every module keeps its name and every layer its number, so adapters, dropout and checkpoints are those of a whole model.
The first card holds all that is no layer. Its model answers as a whole one does: where its own layers end, hidden
states go through those of the other cards and come back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wake2vec.contract.errors import ModelError
from wake2vec.model.new_rows import InstalledRows
from wake2vec.model.split_vocabulary import SplitEmbedding, SplitHead

PLAIN = {"embed_tokens", "layers", "norm", "rotary_emb"}  # a decoder of these is embedding, layers and norm in a row


@dataclass(frozen=True, kw_only=True)
class Passage:
    """What the other cards have to know of hidden states without a gradient."""

    past: int | None  # tokens before these in the cache, None where nothing is to be kept
    bare: bool = False  # without the adapters


@dataclass(kw_only=True)
class Stage:
    """One card's part. `beyond` takes hidden states [b, s, d] through all other cards; the first card alone has it."""

    rank: int
    dealt: tuple[int, ...]  # layers of each card in turn
    beyond: Callable[[Tensor, Passage], Tensor] | None = None
    largest: Callable[[], list[float]] = list  # outputs of the other cards' layers in the last such passage
    arrived: Tensor | None = None  # what stands for the embedding's output on all cards but the first
    left: Tensor | None = field(default=None, init=False)  # what the own layers gave while they were alone
    is_alone: bool = field(default=False, init=False)

    @property
    def layers(self) -> range:
        """The numbers of those held here."""
        return range(sum(self.dealt[: self.rank]), sum(self.dealt[: self.rank + 1]))

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def holds(self, name: str) -> bool:
        """Whether a tensor of this name lies on this card, or the state of an optimizer for it."""
        found = re.search(r"(?:^|\.)layers\.(\d+)\.", name)
        return int(found[1]) in self.layers if found else self.is_first

    def install(self, model: Any) -> None:
        """Let the model run its own layers alone. Raises ModelError where its layers are not all that it is."""
        decoder = model.get_decoder()
        if odd := {name for name, _ in decoder.named_children()} ^ PLAIN:
            raise self._refused(model, f"{type(decoder).__name__} is no plain row of layers ({', '.join(sorted(odd))})")
        for index, layer in enumerate(decoder.layers):
            if index not in self.layers:
                layer.forward = Elsewhere(index, layer, self)
        if not self.is_first:
            decoder.embed_tokens, decoder.norm = _Arrival(self), nn.Identity()

    @torch.no_grad()
    def check(self, model: Any, ids: Tensor) -> None:
        """Raise ModelError unless embedding, layers and norm follow one another with nothing in between. ids [1, s]"""
        decoder, seen = model.get_decoder(), list[Any]()
        parts = (decoder.embed_tokens, decoder.layers[self.layers[-1]], decoder.norm)
        hooks = [part.register_forward_hook(lambda _m, given, out: seen.append((given, out))) for part in parts]
        hooks.append(decoder.layers[0].register_forward_pre_hook(lambda _m, given: seen.append(given)))
        try:
            last = decoder(input_ids=ids, use_cache=False).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        if len(seen) == 4:  # each is called once
            (_, embedded), entered, (_, out), (_, normed) = seen
            if isinstance(out, Tensor) and torch.equal(embedded, entered[0]) and torch.equal(normed, last):
                return
        raise self._refused(model, f"{type(decoder).__name__} does more than its layers do")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within it hidden states end where the own layers do, in `left`."""
        self.is_alone = True
        try:
            yield
        finally:
            self.is_alone, self.left = False, None

    def onward(self, hidden: Tensor, layer: nn.Module, cache: Any) -> Tensor:
        """Where the first card's own layers end. [b, s, d] -> [b, s, d]"""
        if self.is_alone or self.beyond is None:
            self.left = hidden
            return hidden
        past = None if cache is None else int(cache.get_seq_length()) - hidden.shape[1]
        bare = any(getattr(part, "disable_adapters", False) for part in layer.modules())
        return self.beyond(hidden, Passage(past=past, bare=bare))

    def _refused(self, model: Any, problem: str) -> ModelError:
        name = getattr(model.config, "name_or_path", "") or type(model).__name__
        return ModelError(name, f"its layers cannot be dealt out to several cards: {problem}", "set train.cards = 1")


class Elsewhere:
    """Stands in for the forward of a layer that another card holds."""

    def __init__(self, index: int, layer: nn.Module, stage: Stage) -> None:
        self._index, self._layer, self._stage = index, layer, stage

    def __call__(self, hidden_states: Tensor, *_: Any, **more: Any) -> Tensor:
        stage, cache = self._stage, more.get("past_key_values")
        # whose length is asked of any layer that attends; linear attention has none. Layers come with their first use.
        if cache is not None and all(hasattr(one, "update") for one in cache.layers[self._index : self._index + 1]):
            count = hidden_states[:, None, :, :1]  # [b, 1, s, 1]
            cache.update(count, count, self._index)
        if self._index != stage.layers.stop or not stage.is_first:
            return hidden_states
        return stage.onward(hidden_states, self._layer, cache)


class _Arrival(nn.Module):
    """In place of the embedding: what the card before has sent, whatever the ids."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage

    def forward(self, _ids: Tensor) -> Tensor:
        assert self._stage.arrived is not None, "nothing has come yet"
        return self._stage.arrived


def no_rows(width: int, device: torch.device) -> InstalledRows:
    """The vocabulary of a card that has none."""
    base, rows = torch.zeros(1, width, device=device), nn.Parameter(torch.zeros(0, width, device=device), False)
    sides = SplitEmbedding(base, 1, rows), SplitHead(base, 1, rows)
    return InstalledRows(embedding=sides[0], head=sides[1], mode="shared", was_tied=True, published_rows=1)
