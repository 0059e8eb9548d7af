"""Count where the new words of a lexicon stand in a text, in which form, and whether each place is one token there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from wake2vec.contract.words.forms import Finder, Form
from wake2vec.vocab.idmap import IdMap

EXAMPLES = 20


@dataclass(frozen=True, kw_only=True)
class Places:
    """Of one form: places in the text, those that are the word's token, and those that are one published token."""

    occurrences: int = 0
    met: int = 0
    base: int = 0


@dataclass(frozen=True, kw_only=True)
class Occurrences:
    """All figures of a text. Types are new words in whatever form, `base_wins` those that are always a base token."""

    by_form: dict[Form, Places]
    types_present: int
    types_never_met: int
    never_met: tuple[str, ...]  # the most frequent of them
    base_wins: int

    @property
    def occurrences(self) -> int:
        return sum(places.occurrences for places in self.by_form.values())

    @property
    def met(self) -> int:
        return sum(places.met for places in self.by_form.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "occurrences": self.occurrences,
            "occurrences_met": self.met,
            "types_present": self.types_present,
            "types_never_met": self.types_never_met,
            "types_of_a_base_token": self.base_wins,
            "by_form": {str(form): vars(places) for form, places in self.by_form.items()},
        }


def forms_in(texts: Iterable[str], words: Sequence[str]) -> frozenset[tuple[str, Form]]:
    """Each form in which a word stands in the texts."""
    finder = Finder(words)
    return frozenset((words[place.word], place.form) for text in texts for place in finder.find(text))


def count(texts: Iterable[str], tokenizer: Any, id_map: IdMap) -> Occurrences:
    """`texts` are stretches that cut no word in two."""
    finder = Finder(id_map.words)
    kinds, seen, met, base = Counter[tuple[Form, str]](), Counter[int](), Counter[int](), Counter[int]()
    for text in texts:
        encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        tokens = {end: (start, id_) for (start, end), id_ in zip(encoding.offsets, encoding.ids, strict=True)}
        for place in finder.find(text):
            start, id_ = tokens.get(place.end, (-1, -1))
            is_one = start >= 0 and start in (place.start, place.start - 1)
            kind = "pieces" if not is_one else "met" if id_ >= id_map.first_new_id else "base"
            kinds[place.form, kind] += 1
            seen[place.word] += 1
            if is_one:
                (met if kind == "met" else base)[place.word] += 1
    never = [id_map.words[word] for word, _ in seen.most_common() if not met[word]]
    return Occurrences(
        by_form={
            form: Places(
                occurrences=sum(kinds[form, kind] for kind in ("met", "base", "pieces")),
                met=kinds[form, "met"],
                base=kinds[form, "base"],
            )
            for form in Form
        },
        types_present=len(seen),
        types_never_met=len(never),
        never_met=tuple(never[:EXAMPLES]),
        base_wins=sum(base[word] == seen[word] for word in seen),
    )
