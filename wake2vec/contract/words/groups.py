"""Groups of words: derived words beside their bases, or the words of one literary device. Imports no torch.

One JSON object a line, as people have them: `{"morpheme": "-ing", "examples": [...], "bases": [...]}` or
`{"device": "pun", "examples": [...]}`; other keys are passed over.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wake2vec.contract.errors import InputError
from wake2vec.contract.files import counted, open_regular

Kind = Literal["morpheme", "device"]
ENOUGH_PAIRS = 200  # below, a real gain may drown in chance
_SHOWN = 5
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


@dataclass(frozen=True, kw_only=True)
class Group:
    """One line of a file. `bases` stand beside `words`; a device has none."""

    name: str
    line: int
    words: tuple[str, ...]
    bases: tuple[str, ...] = ()


@dataclass(frozen=True, order=True, kw_only=True)
class Pair:
    group: str
    word: str
    base: str


def read_groups(path: Path, kind: Kind) -> list[Group]:
    """Raises InputError that names the lines which are no group of this kind."""
    try:
        with open_regular(path) as file:
            lines = file.read().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read: {error}", "name a JSONL file of groups in UTF-8") from error
    groups, faults = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            groups.append(_group(json.loads(line), kind, number))
        except (ValueError, RecursionError) as error:
            told = "not JSON" if isinstance(error, json.JSONDecodeError) else str(error)
            faults.append(f"line {number}: {told}")
    if faults or not groups:
        told = "; ".join(faults[:_SHOWN]) + (f"; {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else "")
        wanted = '{"morpheme": "-ness", "examples": ["darkness"], "bases": ["dark"]}'
        wanted = wanted if kind == "morpheme" else '{"device": "pun", "examples": ["funferal"]}'
        raise InputError(path, told or "has no group", f"write lines such as {wanted}")
    return groups


def _group(table: Any, kind: Kind, line: int) -> Group:
    if not isinstance(table, dict) or not isinstance(table.get(kind), str):
        raise ValueError(f"has no {kind}")
    words = _words(table, "examples")
    bases = _words(table, "bases") if kind == "morpheme" else ()
    if kind == "morpheme" and len(words) != len(bases):
        raise ValueError(f"{table[kind]!r} has {len(words)} examples but {len(bases)} bases")
    return Group(name=table[kind].strip(), line=line, words=words, bases=bases)


def _words(table: dict[str, Any], key: str) -> tuple[str, ...]:
    found = table.get(key)
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise ValueError(f"{key} is no list of words")
    return tuple(unicodedata.normalize("NFC", word.strip()) for word in found)


@dataclass(frozen=True, kw_only=True)
class Screened:
    """Pairs that can be used, and the others by the reason."""

    pairs: tuple[Pair, ...]
    dropped: dict[str, list[str]]  # reason → `line 3: word, base`

    def remarks(self, name: str) -> list[str]:
        return [
            f"{name}: {counted(len(places), 'pair')} left out, {reason} ({'; '.join(places[:3])}"
            + (" …)" if len(places) > 3 else ")")
            for reason, places in self.dropped.items()
        ]


def words_in(pieces: Iterable[str]) -> set[str]:
    """Words of a text that comes in pieces; one that a piece's end cuts in two is not missed where it stands again.

    A published vocabulary is no witness of words: of " Hur", " gravey" and " ratt" each is a token.
    """
    return {word for piece in pieces for word in _WORD.findall(piece)}


def screen(groups: Iterable[Group], *, rows: Collection[str], attested: Collection[str], any_pair: bool) -> Screened:
    """`rows`: words with a row of their own, `attested`: words that exist. Any pair with a row in it will do if asked.

    What comes twice counts once; a word joins each group once.
    """
    kept: dict[tuple[str, str], Pair] = {}
    dropped: dict[str, list[str]] = {}
    for group in groups:
        for word, base in zip(group.words, group.bases, strict=True):
            reason = _reason(word, base, rows, attested, any_pair)
            if not reason and (group.name, word) in kept:
                reason = "the word comes twice in its group"
            if reason:
                dropped.setdefault(reason, []).append(f"line {group.line}: {word}, {base}")
            else:
                kept[group.name, word] = Pair(group=group.name, word=word, base=base)
    return Screened(pairs=tuple(sorted(kept.values())), dropped=dropped)


def _reason(word: str, base: str, rows: Collection[str], attested: Collection[str], any_pair: bool) -> str:
    if not word or not base or word == base:
        return "the word is its base, or one is empty"
    if word not in rows and not (any_pair and base in rows):
        return "the word has no row of its own"
    return "" if any_pair or base in attested else "the base is no word of the list or the text"


def large_enough(pairs: Sequence[Pair], least: int) -> list[Pair]:
    """Pairs of the groups that have so many."""
    sizes = Counter(pair.group for pair in pairs)
    return [pair for pair in pairs if sizes[pair.group] >= least]


def power_left(pairs: int, held_out: float = 0.2) -> str:
    """What so few pairs can still show: a one-sided test at 5 % that sees four of five such gains."""
    measured = max(1, round(pairs * held_out))
    seen = 2.49 / math.sqrt(measured)
    told = f"{pairs} pairs, fewer than {ENOUGH_PAIRS}; about {measured} would be held out"
    return f"{told}, and a mean gain below {seen:.2f} standard deviations of one pair would mostly pass for chance"


def members(groups: Iterable[Group], rows: Collection[str]) -> Iterator[tuple[str, str]]:
    """(word, device) for words that have a row; a word that stands in several devices is of the first."""
    seen: set[str] = set()
    for group in groups:
        for word in group.words:
            if word in rows and word not in seen:
                seen.add(word)
                yield word, group.name
