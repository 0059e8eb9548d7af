"""The id map: which token, id and row each word of a lexicon has. Written at injection, never worked out again."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from wake2vec.contract.errors import InputError
from wake2vec.contract.words.forms import Form

FORMAT = 1
Match = Literal["word", "anywhere"]
Case = Literal["as-is", "also-capitalised"]


@dataclass(frozen=True, kw_only=True)
class WordIds:
    """One word. `row` is its place in the trainable rows, None for a word that the base tokenizer knew."""

    word: str
    token: str
    id: int
    row: int | None
    trainable: bool
    known: bool
    reachable: bool


@dataclass(frozen=True, kw_only=True)
class FormIds:
    """A form of a word that has an id of its own; `of` is the row of the word."""

    of: int
    form: Form
    token: str
    id: int


@dataclass(frozen=True, kw_only=True)
class IdMap:
    """The only source of row identity: row r of the trained rows belongs to `new[r]`, whose id is first_new_id + r.

    Ids of `forms` follow those of the words, form by form. Where they are shared, they have no rows of their own.
    """

    first_new_id: int
    entries: tuple[WordIds, ...]
    match: Match
    case: Case
    scheme: str
    base_fingerprint: str
    forms: tuple[FormIds, ...] = ()
    shared: bool = False

    @cached_property
    def new(self) -> tuple[WordIds, ...]:
        """Words that got a row, in the order of the rows."""
        return tuple(entry for entry in self.entries if not entry.known)

    @cached_property
    def known(self) -> tuple[WordIds, ...]:
        return tuple(entry for entry in self.entries if entry.known)

    @property
    def n_new(self) -> int:
        """New ids, those of forms among them."""
        return len(self.new) + len(self.forms)

    @property
    def n_ids(self) -> int:
        """Ids of base and new tokens together: the length of the tokenizer."""
        return self.first_new_id + self.n_new

    @property
    def words(self) -> tuple[str, ...]:
        """New words in the order of their rows."""
        return tuple(entry.word for entry in self.new)

    @cached_property
    def word_of(self) -> npt.NDArray[np.int64]:
        """Row of the word that each new id belongs to. [n_new]"""
        return np.array([*range(len(self.new)), *(entry.of for entry in self.forms)], dtype=np.int64)

    def rows(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Row of each id, -1 for base ids."""
        rows = ids - self.first_new_id
        return np.where((rows >= 0) & (rows < self.n_new), rows, -1)

    def save(self, path: Path) -> None:
        """Write the map whole or not at all."""
        apart = ("entries", "forms") if self.forms else ("entries", "forms", "shared")
        head = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in apart}
        if self.forms:
            head["forms"] = [vars(entry) for entry in self.forms]
        lines = ",\n".join(json.dumps(vars(entry), ensure_ascii=False) for entry in self.entries)
        start = json.dumps({"format": FORMAT, "n_new": self.n_new, **head}, ensure_ascii=False)
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(f'{start[:-1]}, "entries": [\n{lines}\n]}}\n')
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def check(self, tokenizer: Any, place: object) -> None:
        """Raises InputError when a tokenizer is not the one that this map was written for."""
        vocabulary = tokenizer.get_vocab()
        everything: tuple[WordIds | FormIds, ...] = (*self.entries, *self.forms)
        wrong = next((entry for entry in everything if vocabulary.get(entry.token) != entry.id), None)
        if wrong is not None:
            found = vocabulary.get(wrong.token)
            problem = (
                f"{getattr(wrong, 'word', wrong.token)!r} has id {wrong.id} in the map but {found} in the tokenizer"
            )
            raise InputError(place, problem, "use the tokenizer that was saved beside the map")
        if len(tokenizer) != self.n_ids:
            problem = f"the map has {self.n_ids} ids but the tokenizer {len(tokenizer)}"
            raise InputError(place, problem, "use the tokenizer that was saved beside the map")


def load(path: Path) -> IdMap:
    """Read an id map. Raises InputError when it is missing, of another format or does not fit itself."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise InputError(path, "the id map has another format", "write it again with this version")
        n_new = data.pop("n_new")
        entries = tuple(WordIds(**entry) for entry in data.pop("entries"))
        forms = tuple(FormIds(**{**entry, "form": Form(entry["form"])}) for entry in data.pop("forms", ()))
        id_map = IdMap(**data, entries=entries, forms=forms)
    except OSError as exc:
        raise InputError(path, exc.strerror or str(exc), "the id map is written at injection: start P1 again") from exc
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise InputError(path, f"not an id map: {exc}", "restore it from the store") from exc
    misplaced = [
        entry for row, entry in enumerate(id_map.new) if (entry.row, entry.id - id_map.first_new_id) != (row, row)
    ]
    first_form = id_map.first_new_id + len(id_map.new)
    astray = any(
        entry.id != first_form + place or not 0 <= entry.of < len(id_map.new)
        for place, entry in enumerate(id_map.forms)
    )
    if misplaced or astray or n_new != id_map.n_new:
        name = misplaced[0].word if misplaced else f"{n_new} rows"
        raise InputError(path, f"ids and rows do not follow each other at {name!r}", "restore it from the store")
    return id_map
