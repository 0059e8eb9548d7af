"""The forms in which a lexicon word stands in a text: after a space or bare, as listed, capitalised or in capitals."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from wake2vec.contract.files import counted

MOST_IN_PIECES = 0.02  # share of a text's places of new words; beyond it a person is told
APOSTROPHES = "'’"  # typed and printed: two characters, and so two words
_SWAPPED = str.maketrans(APOSTROPHES, APOSTROPHES[::-1])
_END = ""
# For the patterns that tokenizers cut by. Letters, marks and digits make a word; a hyphen, an apostrophe or an
# underscore beside it does not.
NOT_IN_WORD = r"(?![\p{L}\p{M}\p{N}])"
NOT_AFTER_WORD = r"(?<![\p{L}\p{M}\p{N}])"


class Form(StrEnum):
    """The first two are a word as its list spells it; `bare` is whatever stands after no space."""

    SPACED = "spaced"
    BARE = "bare"
    SPACED_CAPITALISED = "spaced capitalised"
    BARE_CAPITALISED = "bare capitalised"
    SPACED_CAPITALS = "spaced capitals"
    BARE_CAPITALS = "bare capitals"
    OTHER = "other"  # any other mixture of letters


OWN_IDS = tuple(form for form in Form if form is not Form.OTHER)  # forms that can have an id


def spelt(word: str, form: Form) -> str:
    """A word in a form, without the space. Scripts without case spell all of them alike."""
    if form.endswith("capitalised"):
        return word[0].upper() + word[1:]
    return word.upper() if form.endswith("capitals") else word


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Where a word stands: characters `start` to `end`, without any space before it."""

    word: int  # its place in the list
    form: Form
    start: int
    end: int


class Finder:
    """Finds the words of a list wherever they stand whole, the longest where several begin.

    A spelling that is listed is that word and no form of another.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._spellings: dict[str, tuple[int, tuple[Form, Form]]] = {}
        for pair in zip(OWN_IDS[::2], OWN_IDS[1::2], strict=True):
            for number, word in enumerate(words):
                self._spellings.setdefault(spelt(word, pair[0]), (number, pair))
        self._folded = {word.casefold(): number for number, word in reversed(list(enumerate(words)))}
        letter = rf"(?:[^\W_]|[{_marks()}])"
        self._run = re.compile(rf"{letter}+")
        broken = [spelling for spelling in self._spellings if not self._run.fullmatch(spelling)]
        whole = rf"(?<!{letter}){any_of(broken)}(?!{letter})|" if broken else ""
        self._pattern = re.compile(f"{whole}{letter}+")

    def find(self, text: str) -> Iterator[Occurrence]:
        for match in self._pattern.finditer(text):
            if (found := self._look_up(match[0])) is not None:
                number, forms = found
                start = match.start()
                bare = start == 0 or text[start - 1] != " "
                yield Occurrence(number, forms[bare], start, match.end())

    def _look_up(self, run: str) -> tuple[int, tuple[Form, Form]] | None:
        found = self._spellings.get(run)
        if found is None and not run.isascii():
            found = self._spellings.get(run := unicodedata.normalize("NFC", run))
        if found is None and (number := self._folded.get(run.casefold())) is not None:
            return number, (Form.OTHER, Form.OTHER)
        return found


def other_apostrophes(words: Sequence[str], texts: Iterable[str]) -> Counter[str]:
    """Places where words of a list stand with the other apostrophe, and so are not met; by the text's spelling."""
    swapped = {word.translate(_SWAPPED) for word in words if any(mark in word for mark in APOSTROPHES)} - set(words)
    if not swapped:
        return Counter()
    finder = Finder(sorted(swapped))
    return Counter(text[place.start : place.end] for text in texts for place in finder.find(text))


def about_apostrophes(found: Counter[str]) -> list[str]:
    """What a person is told of them."""
    if not found:
        return []
    (often, _), *more = found.most_common()
    examples = f"{often} for {often.translate(_SWAPPED)}" + (", …" if more else "")
    places = f"{counted(found.total(), 'place')} of the text"
    return [f"{places} would be met if the list had the other apostrophe ({examples}); write it as the text does"]


def any_of(words: Iterable[str]) -> str:
    """A group matching the longest of the words; 45,000 of them compile in 0.3 s."""
    root: dict[str, Any] = {}
    for word in words:
        node = root
        for letter in word:
            node = node.setdefault(letter, {})
        node[_END] = {}
    return _group(root)


def _group(node: dict[str, Any]) -> str:
    branches = [re.escape(letter) + _group(below) for letter, below in sorted(node.items()) if letter != _END]
    if not branches:
        return ""
    # longest first: what ends here is only tried when nothing longer fits
    return "(?:" + "|".join(branches) + ")" + ("?" if _END in node else "")


@cache
def _marks() -> str:
    """Combining marks, for a character class: they are part of the letter before, which `re` does not know."""
    codes = [code for code in range(0x300, 0x10000) if unicodedata.category(chr(code))[0] == "M"]
    return "".join(map(chr, codes))
