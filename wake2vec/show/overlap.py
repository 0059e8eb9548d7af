"""How much of a text stands word for word in the corpus: the longest run they share."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """The longest run of words of a text that the corpus holds in the same order."""

    words: int
    text: str


def longest_overlap(text: str, corpus: str) -> Overlap:
    """Words are compared as they stand, with their punctuation, whatever white space is between them.

    One pass over the corpus, as difflib's `find_longest_match` goes over its first text, which would need it in words.
    """
    written, places = text.split(), defaultdict[str, list[int]](list)
    for place, word in enumerate(written):
        places[word].append(place)
    best = end = 0
    runs: dict[int, int] = {}  # by each place of the text that the last word has: how long the run is that ends there
    for match in re.finditer(r"\S+", corpus):
        before, runs = runs, {}
        for place in places.get(match.group(), ()):
            length = runs[place] = before.get(place - 1, 0) + 1
            if length > best:
                best, end = length, place + 1
    return Overlap(words=best, text=" ".join(written[end - best : end]))
