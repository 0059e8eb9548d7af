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

FORMAT = 1
Match = Literal["word", "anywhere"]
Case = Literal["as-is", "also-capitalised"]

# Merges, normalisation and pre-tokenisation show in how this is cut, the vocabulary does not tell them apart.


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
class IdMap:
    """The only source of row identity: row r of the trained rows belongs to `new[r]`, whose id is first_new_id + r."""

    first_new_id: int
    entries: tuple[WordIds, ...]
    match: Match
    case: Case
    scheme: str
    base_fingerprint: str

    @cached_property
    def new(self) -> tuple[WordIds, ...]:
        """Entries that got a row, in the order of the rows."""
        return tuple(entry for entry in self.entries if not entry.known)

    @cached_property
    def known(self) -> tuple[WordIds, ...]:
        return tuple(entry for entry in self.entries if entry.known)

    @property
    def n_new(self) -> int:
        return len(self.new)

    @property
    def n_ids(self) -> int:
        """Ids of base and new tokens together: the length of the tokenizer."""
        return self.first_new_id + self.n_new

    @property
    def words(self) -> tuple[str, ...]:
        """New words in the order of their rows."""
        return tuple(entry.word for entry in self.new)

    def rows(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Row of each id, -1 for base ids."""
        rows = ids - self.first_new_id
        return np.where((rows >= 0) & (rows < self.n_new), rows, -1)

    def save(self, path: Path) -> None:
        """Write the map whole or not at all."""
        head = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "entries"}
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
        wrong = next((entry for entry in self.entries if vocabulary.get(entry.token) != entry.id), None)
        if wrong is not None:
            found = vocabulary.get(wrong.token)
            problem = f"{wrong.word!r} has id {wrong.id} in the map but {found} in the tokenizer"
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
        id_map = IdMap(**{**data, "entries": tuple(WordIds(**entry) for entry in data["entries"])})
    except OSError as exc:
        raise InputError(path, exc.strerror or str(exc), "the id map is written at injection: start P1 again") from exc
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise InputError(path, f"not an id map: {exc}", "restore it from the store") from exc
    misplaced = [
        entry for row, entry in enumerate(id_map.new) if (entry.row, entry.id - id_map.first_new_id) != (row, row)
    ]
    if misplaced or n_new != id_map.n_new:
        name = misplaced[0].word if misplaced else f"{n_new} rows"
        raise InputError(path, f"ids and rows do not follow each other at {name!r}", "restore it from the store")
    return id_map
