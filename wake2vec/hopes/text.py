"""The text of a job, as its figures read it: what was held out, what was trained on, and where its words stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from wake2vec.contract.words.forms import Finder
from wake2vec.data.corpus import open_corpus
from wake2vec.data.dataset import parted
from wake2vec.data.lines import Print, as_printed
from wake2vec.hopes.reader import Subject
from wake2vec.phases.inputs import input_paths

MOST_BYTES = 256 << 10  # of held-out text that is read
MOST_TRAINED = 4 << 20  # characters of the training text in which runs of words are looked for


@dataclass(frozen=True)
class JobText:
    """Stretches of held-out text, evenly chosen, and the training text from its start."""

    held_out: tuple[str, ...]
    trained: str
    lines: Print | None
    finder: Finder

    @cached_property
    def of_words(self) -> npt.NDArray[np.bool_]:
        """Which bytes of the held-out text are of new words, in whatever form, with the blank before. [bytes]"""
        parts = [self._of_words(text) for text in self.held_out]
        return np.concatenate(parts)

    def _of_words(self, text: str) -> npt.NDArray[np.bool_]:
        ends = np.concatenate([[0], np.cumsum([len(letter.encode()) for letter in text])])
        found = np.zeros(int(ends[-1]), dtype=bool)
        for place in self.finder.find(text):
            start = place.start - (place.start > 0 and text[place.start - 1] in " \n")
            found[ends[start] : ends[place.end]] = True
        return found


def text_of(subject: Subject, *, most: int | None) -> JobText:
    """With about `most` bytes of held-out text, or all. Raises InputError where the frozen text is gone."""
    data = subject.order.training.data
    corpus = open_corpus(input_paths(subject.order, "corpus"))
    lines = as_printed(corpus, data.line_breaks, data.hyphens)
    held, trained, size, gap = list[str](), list[str](), 0, False
    for is_held, text in parted(
        corpus, subject.tokenizer, seq_len=data.seq_len, fraction=data.held_out, seed=data.seed, split=data.split,
        shuffle=data.shuffle, lines=lines,
    ):  # fmt: skip
        if is_held:
            held.append(text)
        elif size < MOST_TRAINED:
            trained.append("\n" * gap + text[: MOST_TRAINED - size])
            size += len(trained[-1])
        gap = is_held
    return JobText(some(held, most), "".join(trained), lines, Finder(subject.id_map.words))


def most_bytes(subject: Subject) -> int:
    """No more than about what an evaluation of the job reads."""
    job = subject.order.training
    windows = job.evaluate.max_windows
    return MOST_BYTES if windows is None else min(MOST_BYTES, 4 * windows * job.data.seq_len)


def some(texts: Sequence[str], most: int | None) -> tuple[str, ...]:
    """So many of them, evenly spread, that they hold about `most` bytes."""
    if most is None:
        return tuple(texts)
    size = sum(len(text.encode()) for text in texts)
    count = max(1, min(len(texts), round(len(texts) * most / max(size, 1))))
    return tuple(texts[place * len(texts) // count] for place in range(count))
