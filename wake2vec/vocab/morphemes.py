"""Common prefixes and suffixes of English and of the languages Joyce bends into it, for the compositional start."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wake2vec.contract.errors import InputError

_PREFIXES = """
a ab ad after anti arch auto be bi by circum co col com con contra counter cross de di dis down en em ex extra fore
full hyper il im in inter intra ir mal micro mid mis mono multi neo non ob off omni on out over pan para per poly
post pre preter pro pseudo quasi re retro self semi step sub super sur sym syn tele trans tri ultra un under uni up
vice with
"""
_SUFFIXES = """
able age al ance ancy ant ar ard arian ary ate ation cy dom ed ee eer en ence ency ent er ern ery es ess est ette
eth fold ful fy graphy hood ial ian ible ic ical ician ie ier iest ification ify ily ine ing ings ious ise ish ism
ist ite ity ive ization ize less let like ling logy ly man ment most ness oid or ory ous ship sion some ster th tion
tive tude ty uous ure ward wards ways wise women y
"""
_SHORTEST_ROOT = 3
_KINDS = ("prefix", "suffix")


@dataclass(frozen=True, kw_only=True)
class Affixes:
    """What words are taken apart into."""

    prefixes: frozenset[str]
    suffixes: frozenset[str]


COMMON = Affixes(prefixes=frozenset(_PREFIXES.split()), suffixes=frozenset(_SUFFIXES.split()))


def read_affixes(path: Path) -> Affixes:
    """A table of `prefix,un` and `suffix,ness` lines. Raises InputError naming the line that is neither."""
    found: dict[str, set[str]] = {kind: set() for kind in _KINDS}
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(path, f"cannot be read: {exc}", "name a table of prefixes and suffixes in UTF-8") from exc
    for number, row in enumerate(rows, start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (number == 1 and cells[0] not in _KINDS):  # a blank line, a heading
            continue
        if len(cells) < 2 or cells[0] not in _KINDS or not cells[1].strip("-"):
            raise InputError(path, f"line {number}: {','.join(row)!r}", "write lines such as prefix,un or suffix,ness")
        found[cells[0]].add(cells[1].strip("-"))
    return Affixes(prefixes=frozenset(found["prefix"]), suffixes=frozenset(found["suffix"]))


def parts_of(word: str, affixes: Affixes = COMMON) -> tuple[str, str, str]:
    """Prefix, root and suffix: the longest prefix, then the longest suffix, that leave a root of three letters."""
    prefix = _longest((p for p in affixes.prefixes if word.startswith(p)), len(word) - _SHORTEST_ROOT)
    rest = word[len(prefix) :]
    suffix = _longest((s for s in affixes.suffixes if rest.endswith(s)), len(rest) - _SHORTEST_ROOT)
    return prefix, rest[: len(rest) - len(suffix)], suffix


def _longest(affixes: Iterable[str], at_most: int) -> str:
    return max((affix for affix in affixes if len(affix) <= at_most), key=len, default="")
