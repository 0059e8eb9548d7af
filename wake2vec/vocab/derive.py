"""Groups of derived words out of a word list: the longest affix whose base is a word, and what a group file holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from wake2vec.contract.errors import InputError
from wake2vec.contract.files import counted, write_atomic
from wake2vec.contract.options import MorphemesOptions
from wake2vec.contract.words.groups import ENOUGH_PAIRS, Pair, large_enough, power_left, read_groups, screen, words_in
from wake2vec.contract.words.lexicon import read_lexicon
from wake2vec.data.corpus import open_corpus
from wake2vec.data.permutation import hashes
from wake2vec.vocab.morphemes import COMMON, Affixes, read_affixes

SHORTEST_ROOT = 3
SHOWN_PAIRS = 10  # of each group, drawn, for the eye
_VOWELS = "aeiouy"
INFLECTED = frozenset({"s", "es"})


def bases_of_suffix(root: str, suffix: str) -> Iterator[str]:
    """What a word may have been before the suffix: as it is, with a dropped e, a y, a single consonant, a hyphen."""
    yield root
    if suffix[0] in _VOWELS:
        yield f"{root}e"
        if root[-1] == root[-2] and root[-1] not in _VOWELS:
            yield root[:-1]
    if root.endswith("i"):
        yield f"{root[:-1]}y"
    if root.endswith("-"):
        yield root[:-1]


def pair_of(word: str, affixes: Affixes, attested: Collection[str], part: str) -> Pair | None:
    """The longest affix of one kind that leaves a base which exists. `-ness` is tried before `-s`."""
    every = affixes.suffixes if part == "suffix" else affixes.prefixes
    for affix in sorted(every, key=lambda one: (-len(one), one)):
        if len(word) < len(affix) + SHORTEST_ROOT:
            continue
        if part == "suffix" and word.endswith(affix):
            name, found = f"-{affix}", bases_of_suffix(word[: -len(affix)], affix)
        elif part == "prefix" and word.lower().startswith(affix):
            name, found = f"{affix}-", iter([word[len(affix) :].removeprefix("-")])
        else:
            continue
        for base in found:
            for form in (base, base.lower()):
                if len(form) >= SHORTEST_ROOT and form in attested and form != word:
                    return Pair(group=name, word=word, base=form)
    return None


def derive(words: Sequence[str], attested: Collection[str], affixes: Affixes, *, least: int, cap: int) -> list[Pair]:
    """Each word joins one suffix group and one prefix group at most; of a large group a draw by the seed 0 is kept."""
    found = [one for word in words for part in ("suffix", "prefix") if (one := pair_of(word, affixes, attested, part))]
    return [
        pair for _, group in sorted(by_group(large_enough(found, least)).items()) for pair in sorted(_some(group, cap))
    ]


def by_group(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.group, []).append(pair)
    return groups


def _some(pairs: Sequence[Pair], count: int) -> list[Pair]:
    return [pairs[place] for place in np.argsort(hashes(len(pairs), 0, 0), kind="stable")[:count]]


def lines_of(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    return [
        {
            "morpheme": name,
            "morpheme_type": "suffix" if name.startswith("-") else "prefix",
            "examples": [pair.word for pair in found],
            "bases": [pair.base for pair in found],
            "n_examples": len(found),
        }
        for name, found in by_group(pairs).items()
    ]


def run(options: MorphemesOptions) -> None:
    words = read_lexicon(options.lexicon).words if options.lexicon else ()
    attested = set(words) | (words_in(open_corpus(options.corpora).pieces()) if options.corpora else set())
    remarks: list[str] = []
    if options.derive:
        affixes = read_affixes(options.affixes) if options.affixes else COMMON
        if not options.affixes:
            affixes = Affixes(prefixes=COMMON.prefixes, suffixes=COMMON.suffixes | INFLECTED)
        pairs = derive(words, attested, affixes, least=options.least, cap=options.cap)
        if not pairs:
            problem = f"no affix of {len(words):,} words leaves {options.least} bases that exist"
            raise InputError(options.lexicon, problem, "name a text with --corpus, whose words are bases too")
    else:
        assert options.groups, "one of the two is named"
        groups = read_groups(options.groups, "morpheme")
        rows = set(words) or {word for group in groups for word in group.words}
        screened = screen(groups, rows=rows, attested=attested or rows, any_pair=not attested)
        pairs, remarks = large_enough(screened.pairs, options.least), screened.remarks(options.groups.name)
    body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines_of(pairs)).encode()
    told = {"file": str(options.out) if options.out else None, "sha256": hashlib.sha256(body).hexdigest(),
            "words": len(words), "pairs": len(pairs), "groups": groups_told(pairs), "remarks": remarks}  # fmt: skip
    if options.out:
        write_atomic(options.out, body)
    print(json.dumps(told, ensure_ascii=False, indent=1) if options.as_json else "\n".join(_as_text(told)))


def groups_told(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """The largest first, each with some pairs drawn for the eye."""
    return [
        {"morpheme": name, "pairs": len(found), "shown": [f"{p.word} < {p.base}" for p in _some(found, SHOWN_PAIRS)]}
        for name, found in sorted(by_group(pairs).items(), key=lambda item: -len(item[1]))
    ]


def _as_text(told: Mapping[str, Any]) -> Iterator[str]:
    of = f", of {counted(told['words'], 'word')}" if told["words"] else ""
    yield f"{counted(told['pairs'], 'pair')} in {counted(len(told['groups']), 'group')}{of}"
    for group in told["groups"]:
        yield f"  {group['morpheme']:<10} {group['pairs']:>5}  {', '.join(group['shown'])}"
    yield from told["remarks"]
    if told["pairs"] < ENOUGH_PAIRS:
        yield f"warning: {power_left(told['pairs'])}"
    if told["file"]:
        yield f"written to {told['file']}, sha256 {told['sha256'][:12]}"
