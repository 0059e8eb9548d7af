"""Common prefixes and suffixes of English and of the languages Joyce bends into it, for the compositional start."""

from __future__ import annotations

from collections.abc import Iterable

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
PREFIXES = frozenset(_PREFIXES.split())
SUFFIXES = frozenset(_SUFFIXES.split())
_SHORTEST_ROOT = 3


def parts_of(word: str) -> tuple[str, str, str]:
    """Prefix, root and suffix: the longest prefix, then the longest suffix, that leave a root of three letters."""
    prefix = _longest((p for p in PREFIXES if word.startswith(p)), len(word) - _SHORTEST_ROOT)
    rest = word[len(prefix) :]
    suffix = _longest((s for s in SUFFIXES if rest.endswith(s)), len(rest) - _SHORTEST_ROOT)
    return prefix, rest[: len(rest) - len(suffix)], suffix


def _longest(affixes: Iterable[str], at_most: int) -> str:
    return max((affix for affix in affixes if len(affix) <= at_most), key=len, default="")
