"""Join lines of print to paragraphs, and say which characters of the original each one stands for.

A line break is kept where it means something: at a blank line, before an indent, before the dash of a dialogue, in
verse, and after a line too short to have ended at the edge of the page. What "too short" is the text says itself: a
line that begins in lower case goes on with the one before, and shows how long full lines are.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np

from wake2vec.data.permutation import Ints

LineBreaks = Literal["keep", "join", "auto"]
Hyphens = Literal["keep", "mend"]

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_WIDTHS = range(30, 161)  # of a line of print; longer ones are paragraphs
_SURE = 0.2  # share of breaks before a lower-case line, which print has and paragraphs have not
_CASED, _EVEN = 0.3, 0.5  # where fewer lines begin with a letter that has case: share that are as long as the longest
_VERSE, _VERSE_LINES = 0.9, 4  # share of lines that begin with a capital, and of how many at least
_LINES_AT_ONCE = 10_000
_DASHES = ("—", "―", "–", "- ", "* ", "• ")
_HYPHENS = ("-", "\u2010", "\u00ad")


class Break(StrEnum):
    """What becomes of a line break, and why."""

    JOINED = auto()
    BLANK = auto()
    INDENT = auto()
    DASH = auto()
    SHORT = auto()
    VERSE = auto()


@dataclass(frozen=True, kw_only=True)
class Print:
    """How a text is printed: a line and the next word, together at least `full` long, ended at the edge of the page."""

    full: int
    hyphens: Hyphens
    counts: Counter[Break]  # of the whole text

    def told(self) -> str:
        kept = ", ".join(f"{self.counts[kind]:,} {kind}" for kind in Break if self.counts[kind] and kind != "joined")
        return f"{self.counts[Break.JOINED]:,} of {self.counts.total():,} line breaks joined (kept: {kept or 'none'})"


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A text without the breaks of print; its first n characters stand for the first `ends[n]` of the original."""

    text: str
    ends: Ints  # [characters + 1]


class Text(Protocol):
    """A text that can be gone through more than once."""

    def pieces(self) -> Iterator[str]: ...


def as_printed(text: Text, line_breaks: LineBreaks, hyphens: Hyphens = "keep") -> Print | None:
    """How a text is printed; None where its breaks stay: `keep`, or `auto` and it is not in lines of print."""
    if line_breaks == "keep":
        return None
    reaches, sure, cased = Counter[int](), Counter[int](), 0
    for run in _runs(text.pieces()):
        for line, after in pairwise(run):
            if _own_start(after) is None:
                reaches[_reach(line, after)] += 1
                sure[_reach(line, after)] += after[0].islower()
                cased += after[0].lower() != after[0].upper()
    width = _quantile(reaches, 0.9)
    full = _quantile(sure, 0.05) if sure.total() else int(0.85 * width)
    if cased >= _CASED * reaches.total():
        goes_on = sure.total() >= _SURE * reaches.total()
    else:
        goes_on = sum(count for reach, count in reaches.items() if reach >= full) >= _EVEN * reaches.total()
    is_print = width in _WIDTHS and goes_on
    if line_breaks == "auto" and not is_print:
        return None
    kinds = (pair for run in _runs(text.pieces()) for pair in zip(run, _breaks(run, full), strict=True))
    counts = Counter(kind for line, kind in kinds if line.endswith("\n"))
    return Print(full=full, hyphens=hyphens, counts=counts)


def join_lines(text: str, found: Print) -> Joined:
    """A space in place of each break that print alone made, or nothing after a hyphen or a dash."""
    parts: list[str] = []
    ends: list[Ints] = [np.zeros(1, dtype=np.int64)]
    done = 0
    for run in _runs([text]):
        for line, after, kind in zip(run, [*run[1:], ""], _breaks(run, found.full), strict=True):
            part = line if kind is not Break.JOINED else _before(line, after, found.hyphens)
            # the last character of a part stands for what is left out behind it too
            ends.append(np.append(np.arange(done + 1, done + len(part)), done + len(line)).astype(np.int64))
            parts.append(part)
            done += len(line)
    return Joined(text="".join(parts), ends=np.concatenate(ends))


def stretches(text: Text, found: Print | None, most: int | None = None) -> Iterator[str]:
    """The text as a tokenizer reads it, or its first `most` characters, in stretches that cut no line in two."""
    rest, done = "", 0
    for piece in text.pieces():
        whole, line_break, end = piece.rpartition("\n")
        rest += whole + line_break
        if line_break:
            yield rest if found is None else join_lines(rest, found).text
            done += len(rest)
            rest = ""
            if most is not None and done >= most:
                return
        rest += end
    if rest:
        yield rest if found is None else join_lines(rest, found).text


def _runs(pieces: Iterable[str]) -> Iterator[list[str]]:
    """Lines with their breaks, cut after each blank one."""
    run, rest = list[str](), ""
    for piece in pieces:
        lines = _LINE.findall(rest + piece)
        rest = lines.pop() if lines and not lines[-1].endswith("\n") else ""
        for line in lines:
            run.append(line)
            if not line.strip() or len(run) >= _LINES_AT_ONCE:
                yield run
                run = []
    if rest:
        run.append(rest)
    if run:
        yield run


def _breaks(run: Sequence[str], full: int) -> list[Break]:
    """What becomes of the break after each line; that of the last, which a blank line or the text ends, is kept."""
    kinds = [_kind(line, after, full) for line, after in pairwise(run)]
    starts = [after.lstrip("\"'“‘«„([")[:1] for after in run[1:] if after.strip()]
    if len(starts) + 1 >= _VERSE_LINES and sum(start.isupper() for start in starts) >= _VERSE * len(starts):
        kinds = [Break.VERSE if kind is Break.JOINED else kind for kind in kinds]
    return [*kinds, Break.BLANK]


def _kind(line: str, after: str, full: int) -> Break:
    if (own := _own_start(after)) is not None:
        return own
    return Break.JOINED if _reach(line, after) >= (full // 2 if after[0].islower() else full) else Break.SHORT


def _own_start(line: str) -> Break | None:
    """Why a line begins something of its own, whatever stands before it."""
    if not line.strip():
        return Break.BLANK
    if line[0].isspace():
        return Break.INDENT
    return Break.DASH if line.startswith(_DASHES) else None


def _reach(line: str, after: str) -> int:
    """How long the line would have been with the next word."""
    return len(line.rstrip()) + 1 + len(after.split(maxsplit=1)[0])


def _before(line: str, after: str, hyphens: Hyphens) -> str:
    """A line as it stands before the one that goes on with it."""
    bare = line.rstrip()
    if bare.endswith(_HYPHENS) and bare[-2:-1].isalpha():
        return bare[:-1] if bare[-1] == "\u00ad" or (hyphens == "mend" and after[0].islower()) else bare
    wide = bare[-1] + after[0]
    is_close = bare[-1] in "—―" or all(unicodedata.east_asian_width(letter) in "WF" for letter in wide)
    return bare if is_close else f"{bare} "


def _quantile(counts: Counter[int], share: float) -> int:
    wanted, passed = share * counts.total(), 0
    for value in sorted(counts):
        passed += counts[value]
        if passed >= wanted and counts[value]:
            return value
    return 0
