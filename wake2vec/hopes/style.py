"""Wake style: the same figures of texts that the model wrote, of those of the untouched model, and of held-out text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from wake2vec.hopes.reader import Subject
from wake2vec.hopes.resampling import apart_interval, p_of_labels
from wake2vec.hopes.text import JobText
from wake2vec.show.hopes import Figure, Hope
from wake2vec.show.overlap import longest_overlap

HUMAN = 8  # passages of held-out text
FEWEST = 20  # words of a text that has a style
GRAM = 3


def style(subject: Subject, text: JobText, mine: Sequence[str], theirs: Sequence[str]) -> Iterator[Figure | str]:
    mine, theirs = ([one for one in texts if len(one.split()) >= FEWEST] for texts in (mine, theirs))
    if not mine or not theirs:
        yield f"Style: no sample text has {FEWEST} words to be judged by."
        return
    words = min(len(one.split()) for one in (*mine, *theirs))  # of each text, since figures hang on the length
    human, rest = passages(text.held_out, words)
    groups = [[" ".join(one.split()[:words]) for one in texts] for texts in (mine, theirs, human)]
    letters = min(len(one) for group in groups for one in group)
    known = trigrams("".join(rest))
    figures: dict[str, Callable[[str], float]] = {
        "new words, share of words": lambda one: sum(1 for _ in text.finder.find(one)) / words,
        "surprisal, bits/byte": lambda one: surprisal(subject, one),
        "longest run shared, words": lambda one: longest_overlap(one, text.trained).words,
        "distinct words, share": lambda one: len({*one.split()}) / words,
        "letters unlike the text's, bits": lambda one: divergence(trigrams(one[:letters]), known),
    }
    said = {
        "surprisal, bits/byte": "of the text, to the untouched model: the same judge for all three",
        "longest run shared, words": "with the training text",
        "distinct words, share": f"of {words}, as many as each text is cut to",
        "letters unlike the text's, bits": f"Jensen-Shannon divergence of {GRAM}-grams of the first {letters:,} "
        "characters to the rest of the held-out text",
    }
    for name, measure in figures.items():
        if name.startswith("letters") and not rest:
            continue
        ours, base, real = (np.array([measure(one) for one in group], dtype=np.float64) for group in groups)
        low, high = apart_interval(ours, base)
        yield Figure(
            hope=Hope.STYLE, key=f"style.{name}", name=name, value=float(ours.mean()), untouched=float(base.mean()),
            human=float(real.mean()) if len(real) else None, low=low, high=high, null=0.0, p=p_of_labels(ours, base),
            of=len(ours), unit="texts", text=said.get(name, ""),
        )  # fmt: skip


def passages(held_out: Sequence[str], words: int, most: int = HUMAN) -> tuple[list[str], list[str]]:
    """Some of every other stretch, each with so many words at least, and the stretches that stay behind."""
    long = [text for text in held_out[::2] if len(text.split()) >= words]
    chosen = [long[place * len(long) // most] for place in range(most)] if len(long) > most else long
    return chosen, list(held_out[1::2])


def surprisal(subject: Subject, text: str) -> float:
    nats, asked = subject.untouched.over_bytes([text], subject.order.training.data.seq_len)
    return float(nats[asked].sum() / math.log(2) / max(1, asked.sum()))


def trigrams(text: str) -> Counter[str]:
    text = " ".join(text.split())
    return Counter(text[place : place + GRAM] for place in range(len(text) - GRAM + 1))


def divergence(one: Counter[str], other: Counter[str]) -> float:
    """Jensen-Shannon, in bits: 0 for the same shares, 1 for nothing in common. Lin 1991."""

    def to_middle(a: Counter[str], b: Counter[str]) -> float:
        n, m = a.total(), b.total()
        return sum(c / n * math.log2(2 * c / n / (c / n + b[gram] / m)) for gram, c in a.items())

    return (to_middle(one, other) + to_middle(other, one)) / 2
