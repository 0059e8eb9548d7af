"""Wake words in context: their cost beside the untouched model, and whether a scorer finds generated ones likely."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wake2vec.contract.files import counted
from wake2vec.contract.words.forms import Finder
from wake2vec.data.blocks import IGNORED
from wake2vec.data.tokens import pieces
from wake2vec.hopes.reader import Reader, Subject
from wake2vec.hopes.resampling import Doubles, at_least, mean_interval, p_of_signs, ratio_interval
from wake2vec.hopes.text import JobText
from wake2vec.show.hopes import Figure, Hope

STRETCH = 1000  # bytes of text that are drawn together
WORDS = 24  # places of generated words that are judged
CONTEXTS = 8  # that each is judged by: its own, and those of others; even, so that luck is right half of the time
FEWEST = 8  # words that a context has
BEFORE = 24  # tokens of it that the scorer reads, out of so many characters
LETTERS = 300
SCORER = (
    "The scorer of generated words is the published model with its own tokenizer. It has seen nothing of this job, "
    "but the trained model is built on it, and its makers may have trained it on this text."
)


def bits(subject: Subject, text: JobText) -> Iterator[Figure]:
    """Of new words, of other text and of all, by both models on the same bytes."""
    length = subject.order.training.data.seq_len
    found = [reader.over_bytes(text.held_out, length, text.lines) for reader in (subject.trained, subject.untouched)]
    both = found[0][1] & found[1][1]
    parts = {"new words": text.of_words, "other text": ~text.of_words, "all text": both}
    for name, part in parts.items():
        if (both & part).any():
            yield compared(Hope.CONTEXT, name, found[0][0], found[1][0], both & part)


def compared(hope: Hope, name: str, one: Doubles, other: Doubles, part: npt.NDArray[np.bool_]) -> Figure:
    """Bits per byte of a part of a text, with what they changed."""
    unit = np.arange(len(part))[part] // STRETCH
    mine, theirs, size = (by_unit(values[part], unit) for values in (one, other, np.ones(len(part))))
    mine, theirs = mine / math.log(2), theirs / math.log(2)
    low, high = ratio_interval(mine - theirs, size)
    return Figure(
        hope=hope,
        key=f"bits.{name}",
        name=f"{name}, bits/byte",
        value=float(mine.sum() / size.sum()),
        untouched=float(theirs.sum() / size.sum()),
        low=low,
        high=high,
        null=0.0,
        p=p_of_signs(mine - theirs),
        of=len(size),
        unit="stretches",
        text=f"{int(size.sum()):,} bytes; by chance: the signs of the stretches' changes",
    )


def by_unit(values: Doubles, unit: npt.NDArray[np.int64]) -> Doubles:
    """Sums over the values of each unit that there are any of."""
    return np.bincount(unit, weights=values)[np.unique(unit)].astype(np.float64)


@dataclass(frozen=True)
class Met:
    """A new word as it is spelt in a text, and the text before it."""

    word: str
    before: str


def met_in(texts: Sequence[tuple[str, str]], finder: Finder) -> list[Met]:
    """Words behind the prompt of each text, the first time that they stand there; a scorer would copy the second."""
    found = []
    for prompt, text in texts:
        whole, seen = prompt + text, set[int]()
        for place in finder.find(whole):
            before = whole[: place.start]
            if place.word not in seen and place.start >= len(prompt) and len(before.split()) >= FEWEST:
                found.append(Met(whole[place.start : place.end], before))
            seen.add(place.word)
    return [found[place * len(found) // WORDS] for place in range(WORDS)] if len(found) > WORDS else found


def nats_in_contexts(scorer: Reader, met: Sequence[Met]) -> Doubles:
    """What each word costs behind its own context, and behind those of CONTEXTS - 1 others. [words, CONTEXTS]"""
    words, n = pieces([one.word for one in met], scorer.tokenizer), len(met)
    longest = max(map(len, words))
    found = np.empty((n, CONTEXTS))
    for place, one in enumerate(met):
        read = scorer.tokenizer(one.before[-LETTERS:].rstrip(), add_special_tokens=False)["input_ids"]
        context = list(read)[-BEFORE:]
        asked = [(place - number * n // CONTEXTS) % n for number in range(CONTEXTS)]
        ids = np.zeros((CONTEXTS, len(context) + longest), dtype=np.int64)
        targets = np.full(ids.shape, IGNORED, dtype=np.int64)
        for row, word in enumerate(words[number] for number in asked):
            ids[row, : len(context) + len(word)] = [*context, *word]
            targets[row, len(context) - 1 : len(context) + len(word) - 1] = word
        found[asked, range(CONTEXTS)] = scorer.nats(ids[:, :-1], targets[:, :-1]).sum(axis=1)
    return found


def fits(scorer: Reader, met: Sequence[Met]) -> Doubles:
    """Of each word whether it costs less behind its own context than behind the middle one of all. [words]"""
    nats = nats_in_contexts(scorer, met)
    return (nats[:, 0] < np.median(nats, axis=1)).astype(np.float64)


def likelier(subject: Subject, text: JobText, written: Sequence[tuple[str, str]]) -> Iterator[Figure | str]:
    """Share of generated words that the scorer finds likelier in their own context than in others."""
    mine, theirs = (met_in(texts, text.finder) for texts in (written, [("", one) for one in text.held_out]))
    if len(mine) < CONTEXTS:
        yield f"Only {counted(len(mine), 'new word')} in the sample texts: too few to judge their contexts."
        return
    found = fits(subject.untouched, mine)
    low, high = mean_interval(found)
    yield Figure(
        hope=Hope.CONTEXT,
        key="likelier",
        name="generated words likelier in their context",
        value=float(found.mean()),
        human=float(fits(subject.untouched, theirs).mean()) if len(theirs) >= CONTEXTS else None,
        low=low,
        high=high,
        null=0.5,
        p=at_least(int(found.sum()), len(found), 0.5),
        of=len(found),
        unit="words",
        text=f"share that costs the scorer less behind its own context than behind the middle one of {CONTEXTS}, the "
        "others being of other words; by chance: half",
    )
    yield SCORER
