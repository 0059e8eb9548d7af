"""Choose which spans of a text are held out, before any tokenizer sees it.

The choice depends on the text, the fraction and the seed alone, so it is the same for every model, phase and sequence
length: nothing that one phase measures on has been trained on by another, and bits per byte compare across tokenizers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from wake2vec.contract.errors import InputError
from wake2vec.data.permutation import hashes

SPAN_CHARACTERS = 2000
# Adjacent training spans are joined, but not without end: a tokenizer's memory grows with the length it is given.
JOINED_CHARACTERS = 1 << 18

_HELD_OUT_STREAM = 0x48454C44


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of the text, in characters, `end` excluded."""

    start: int
    end: int
    held_out: bool

    @property
    def characters(self) -> int:
        return self.end - self.start


def choose(pieces: Iterable[str], *, fraction: float, seed: int, place: object) -> tuple[Span, ...]:
    """Hold out about `fraction` of the characters, in spans of about 2,000 cut at paragraphs or white space.

    Spans come in the order of the text: those to train on are joined, held-out ones stand alone.
    Raises InputError when the text is too short to hold anything out.
    """
    ends = list(cut_points(pieces))
    chosen = _chosen(ends, fraction, seed)
    if fraction > 0 and (not chosen or len(chosen) == len(ends)):
        raise InputError(
            place,
            f"the text has {len(ends)} span(s) of {SPAN_CHARACTERS} characters, "
            f"too few to hold out {fraction:.3g} of it",
            "give a longer text, or a held_out that comes to a whole span",
        )
    return tuple(_joined(ends, chosen))


def spans_of_text(pieces: Iterable[str], spans: Iterable[Span]) -> Iterator[tuple[Span, str]]:
    """Each span with its text, in order, holding no more than one span and one piece in memory."""
    source = iter(pieces)
    buffer = ""
    for span in spans:
        while len(buffer) < span.characters:
            buffer += next(source)
        yield span, buffer[: span.characters]
        buffer = buffer[span.characters :]


def cut_points(pieces: Iterable[str]) -> Iterator[int]:
    """Where spans end: after the first paragraph that passes 2,000 characters, else at white space, else anywhere."""
    start, buffer = 0, ""
    for piece in pieces:
        buffer += piece
        done = 0
        while len(buffer) - done >= 2 * SPAN_CHARACTERS:
            done += _cut(buffer, done)
            yield start + done
        start, buffer = start + done, buffer[done:]
    while len(buffer) >= 2 * SPAN_CHARACTERS:
        length = _cut(buffer, 0)
        start, buffer = start + length, buffer[length:]
        yield start
    if buffer:
        yield start + len(buffer)


_PARAGRAPH = re.compile(r"\n\s*\n")
_LINE = re.compile(r"\n+")
_SPACE = re.compile(r"(?=\s)")


def _cut(buffer: str, start: int) -> int:
    # Looks between 0.5 and 1.5 spans only: the answer must not depend on how the text was cut into pieces.
    low, high = start + SPAN_CHARACTERS // 2, start + 3 * SPAN_CHARACTERS // 2
    for pattern in (_PARAGRAPH, _LINE, _SPACE):
        ends = [match.end() for match in pattern.finditer(buffer, low, high) if match.end() < high]
        if ends:
            # after a line break, but before a space: the next span then begins with a whole word and its space
            return min(ends, key=lambda end: abs(end - start - SPAN_CHARACTERS)) - start
    return SPAN_CHARACTERS


def _chosen(ends: list[int], fraction: float, seed: int) -> set[int]:
    """Spans in the order of their hash until the fraction of the characters is reached as nearly as can be."""
    lengths = np.diff([0, *ends])
    wanted, taken, chosen = fraction * float(lengths.sum()), 0, set[int]()
    for index in np.argsort(hashes(len(ends), seed, _HELD_OUT_STREAM), kind="stable"):
        length = int(lengths[index])
        if taken + length / 2 > wanted:
            break
        chosen.add(int(index))
        taken += length
    return chosen


def _joined(ends: list[int], chosen: set[int]) -> Iterator[Span]:
    start = 0
    for index, end in enumerate(ends):
        held_out = index in chosen
        next_end = ends[index + 1] if index + 1 < len(ends) else None
        if held_out or next_end is None or index + 1 in chosen or next_end - start > JOINED_CHARACTERS:
            yield Span(start=start, end=end, held_out=held_out)
            start = end
