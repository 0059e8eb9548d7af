"""How much of a text stands word for word in the corpus: the longest run they share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """The longest run of words of a text that the corpus holds in the same order."""

    words: int
    text: str


def longest_overlap(text: str, corpus: str) -> Overlap:
    """Words are compared as they stand, with their punctuation, whatever white space is between them.

    One pass over the corpus with a suffix automaton of the text: time and memory do not depend on where they match.
    """
    written = text.split()
    states = _automaton(written)
    best_length = best_end = state = length = 0
    for word in _words(corpus):
        while state and word not in states[state].next:
            state = states[state].link
            length = states[state].length
        if word not in states[state].next:
            continue
        state, length = states[state].next[word], length + 1
        if length > best_length:
            best_length, best_end = length, states[state].first_end
    return Overlap(words=best_length, text=" ".join(written[best_end - best_length : best_end]))


def _words(corpus: str) -> Iterator[str]:
    return (match.group() for match in re.finditer(r"\S+", corpus))


@dataclass
class _State:
    """A set of runs of words that end at the same places of the text."""

    length: int = 0  # of its longest run
    link: int = 0  # the state of its longest run's suffixes that also end elsewhere
    first_end: int = 0  # where a run of it ends first, in words
    next: dict[str, int] = field(default_factory=dict)


def _automaton(words: list[str]) -> list[_State]:
    """Blumer et al., "The smallest automaton recognizing the subwords of a text", TCS 40, 1985."""
    states, last = [_State()], 0
    for end, word in enumerate(words, start=1):
        new = len(states)
        states.append(_State(length=end, first_end=end))
        at: int | None = last
        while at is not None and word not in states[at].next:
            states[at].next[word] = new
            at = states[at].link if at else None
        if at is not None:
            states[new].link = _target(states, at, word)
        last = new
    return states


def _target(states: list[_State], at: int, word: str) -> int:
    """The state that `word` leads to from `at`, split off where it also holds longer runs."""
    there = states[at].next[word]
    if states[there].length == states[at].length + 1:
        return there
    clone = len(states)
    old = states[there]
    states.append(_State(length=states[at].length + 1, link=old.link, first_end=old.first_end, next=dict(old.next)))
    walk: int | None = at
    while walk is not None and states[walk].next.get(word) == there:
        states[walk].next[word] = clone
        walk = states[walk].link if walk else None
    old.link = clone
    return clone
