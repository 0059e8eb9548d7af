"""What a list of possessives changes in other text, by three tokenizers: `python -m bench.studies.possessives WORDS`.

Sentences of *Ulysses* that hold no listed word in any spelling must keep every token; those that hold one are told by
what stands there.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.material.materials import default_cache, ulysses
from bench.studies.vocabularies import TOKENIZERS
from wake2vec.contract.words.forms import Finder, Form
from wake2vec.contract.words.lexicon import read_lexicon
from wake2vec.vocab.inject import inject, load_tokenizer
from wake2vec.vocab.occurrences import forms_in


def sentences(text: str) -> list[str]:
    return [one for one in re.split(r"(?<=[.!?])\s+|\n+", text) if one.strip()]


def possessives(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(one for one in words if one.endswith("'s"))


def changed(base: Any, made: Any, texts: Sequence[str]) -> set[int]:
    """Places of those that the two tokenizers cut differently."""
    both = [
        [one.ids for one in tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)]
        for tokenizer in (base, made)
    ]
    return {place for place, (before, now) in enumerate(zip(*both, strict=True)) if before != now}


def row(name: str, base: Any, words: tuple[str, ...], texts: Sequence[str], forms: frozenset[tuple[str, Form]]) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        made = inject(base, words, directory=Path(scratch) / "vocabulary", forms=forms).tokenizer
        moved = changed(base, made, texts)
    finder, letters = Finder(words), set(words)
    outside = {place for place, text in enumerate(texts) if next(finder.find(text), None) is None}
    unlisted = {place for place in moved if letters.isdisjoint(re.findall(r"[^\W\d_]+", texts[place]))}
    return (
        f"{name:<18}{len(words):>7,} words, {'forms' if forms else 'one form':<9}{len(texts):>8,} sentences, "
        f"{len(outside):>7,} hold none and {len(outside & moved):,} of them change; {len(moved):,} change, "
        f"{len(unlisted):,} of them without a listed word between what is no letter"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", type=Path, help="one word a line")
    asked = parser.parse_args()
    listed = read_lexicon(asked.words).words
    text = ulysses(default_cache()).read_text(encoding="utf-8").replace("’", "'")  # as the list spells it
    texts = sentences(text)
    for name, make in TOKENIZERS.items():
        base = load_tokenizer(make(default_cache()))
        for words in (possessives(listed), listed):
            for forms in (frozenset[tuple[str, Form]](), frozenset(forms_in((text,), words))):
                print(row(name, base, words, texts, forms), flush=True)


if __name__ == "__main__":
    main()
