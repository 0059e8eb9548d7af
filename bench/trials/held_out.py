"""Held-out bytes that every trial is measured on: which span, which form of which word, and bits with an interval.

Nats of a token are spread over the bytes it stands for, so that trials with different tokenizers are measured on the
same bytes. Spans are held out once, by a seed of their own: every third chooses rates and ways, the others are
reported, and an interval comes from drawing the reported spans again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wake2vec.contract.words.forms import Finder, Form
from wake2vec.data.blocks import Windows
from wake2vec.data.corpus import Corpus
from wake2vec.data.heldout import choose, spans_of_text

FRACTION, SPLIT_SEED = 0.15, 42
VALIDATION = 3  # every third span
SKIPPED = 32  # first bytes of a span: contenders begin there with tokens of different lengths
DRAWS = 2000
WINDOWS_AT_ONCE = 32
FORMS = len(Form) + 1  # 0 is text that is no new word

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Nll = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Of each held-out byte: its span (-1: not counted), the form of a new word (0: none) and which word (-1)."""

    span: Ints
    form: Ints
    word: Ints

    @property
    def spans(self) -> int:
        return int(self.span.max()) + 1

    def by_form(self, values: Floats) -> Floats:
        """Sums by span and form. [spans, FORMS]"""
        counted = self.span >= 0
        code = self.span[counted] * FORMS + self.form[counted]
        sums: Floats = np.bincount(code, weights=values[counted], minlength=self.spans * FORMS).astype(np.float64)
        return sums.reshape(self.spans, FORMS)

    def by_met(self, values: Floats, met: Ints) -> Floats:
        """Sums over reported words after a space that training met never, up to 3 times, more often. [3]"""
        spaced = (self.form == 1 + list(Form).index(Form.SPACED)) & (self.span % VALIDATION > 0) & (self.span >= 0)
        kind = np.searchsorted([1, 4], met[self.word[spaced]], side="right")
        sums: Floats = np.bincount(kind, weights=values[spaced], minlength=3).astype(np.float64)
        return sums


def held_out(corpus: Corpus, words: Sequence[str]) -> HeldOut:
    finder, order = Finder(words), list(Form)
    chosen = choose(corpus.pieces(), fraction=FRACTION, seed=SPLIT_SEED, place="text")
    spans: list[Ints] = []
    forms: list[Ints] = []
    numbers: list[Ints] = []
    for span, text in spans_of_text(corpus.pieces(), chosen):
        if not span.held_out:
            continue
        ends = np.concatenate([[0], np.cumsum([len(letter.encode()) for letter in text])])
        whose = np.full(int(ends[-1]), len(spans), dtype=np.int64)
        whose[:SKIPPED] = -1
        form, word = np.zeros_like(whose), np.full_like(whose, -1)
        for place in finder.find(text):
            # the space before a word is of its token
            start = place.start - (place.start > 0 and text[place.start - 1] in " \n")
            form[ends[start] : ends[place.end]] = 1 + order.index(place.form)
            word[ends[start] : ends[place.end]] = place.word
        spans.append(whose)
        forms.append(form)
        numbers.append(word)
    return HeldOut(span=np.concatenate(spans), form=np.concatenate(forms), word=np.concatenate(numbers))


def per_byte(nll: Nll, windows: Windows, size: int, device: str) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Nats of each byte of the windows' text, and which bytes were asked for."""
    nats, covered = np.zeros(size + 1), np.zeros(size + 1, dtype=bool)
    for first in range(0, len(windows.inputs), WINDOWS_AT_ONCE):
        part = slice(first, first + WINDOWS_AT_ONCE)
        inputs, targets = (torch.from_numpy(array[part]).to(device) for array in (windows.inputs, windows.targets))
        found = nll(inputs, targets).double().cpu().numpy()
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


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Nats and bytes by span and form, `[spans, FORMS]`, the mean of several seeds or of one."""

    nats: Floats
    bytes: Floats

    @classmethod
    def of(cls, runs: Sequence[dict[str, list[list[float]]]]) -> Measured:
        return cls(
            nats=np.mean([np.array(run["nats"]) for run in runs], axis=0),
            bytes=np.mean([np.array(run["bytes"]) for run in runs], axis=0),
        )

    def part(self, *, validation: bool) -> Measured:
        keep = (np.arange(len(self.nats)) % VALIDATION == 0) == validation
        return Measured(nats=self.nats[keep], bytes=self.bytes[keep])

    def bits(self, forms: Sequence[int]) -> float | None:
        """Bits per byte over bytes of these forms."""
        size = float(self.bytes[:, forms].sum())
        return float(self.nats[:, forms].sum()) / size / math.log(2) if size else None


ALL = tuple(range(FORMS))
NEW = (1 + list(Form).index(Form.SPACED),)  # a word as its list spells it, after a space: one id in every way
ANY_FORM = ALL[1:]
OTHER_TEXT = (0,)
PARTS: dict[str, Sequence[int]] = {"all": ALL, "new": NEW, "words": ANY_FORM, "other": OTHER_TEXT}


def interval(ours: Measured, other: Measured, forms: Sequence[int]) -> list[float]:
    """95 % of `other` less `ours` in bits per byte: a paired bootstrap over spans."""
    draws = np.random.default_rng(0).integers(0, len(ours.nats), size=(DRAWS, len(ours.nats)))

    def drawn(one: Measured) -> Floats:
        nats, size = one.nats[:, forms].sum(axis=1), one.bytes[:, forms].sum(axis=1)
        return nats[draws].sum(axis=1) / np.maximum(size[draws].sum(axis=1), 1) / math.log(2)

    return [round(float(value), 5) for value in np.quantile(drawn(other) - drawn(ours), [0.025, 0.975])]
