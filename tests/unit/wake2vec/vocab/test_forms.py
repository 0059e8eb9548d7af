"""Each form of a word that a text needs is one token wherever it stands, and decodes as it was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wake2vec.contract.words.forms import OWN_IDS, Finder, Form, spelt
from wake2vec.data.control import _TEXT as ENGLISH
from wake2vec.vocab.idmap import load
from wake2vec.vocab.inject import Injection, inject
from wake2vec.vocab.occurrences import count

WORDS = ("riverrun", "prankquean", "mole's", "church-ways", "naïvety", "the")
TEXT = (
    "riverrun, past Riverrun and RIVERRUN.\n“Riverrun”—riverrun (RIVERRUN) _riverrun_\n\tprankquean…prankquean "
    "'prankquean'\nThe Mole's mole's\nmole's “Mole's” church-ways\nChurch-ways —church-ways, a naïvety; NAÏVETY.\n"
    "We'll don't you'll\n"
)
EVERY = frozenset((word, form) for word in WORDS for form in OWN_IDS)


def injected(base: Any, tmp_path: Path, forms: Any = EVERY) -> Injection:
    return inject(base, WORDS, directory=tmp_path / "tokenizer", forms=forms, shared=True)


def check(made: Injection, base: Any) -> None:
    found = count([TEXT], made.tokenizer, made.id_map)
    pieces = {form: places for form, places in found.by_form.items() if places.met + places.base < places.occurrences}
    assert not pieces, found
    ids = made.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert made.tokenizer.decode(ids) == base.decode(base(TEXT, add_special_tokens=False)["input_ids"])


def test_byte_level(byte_level: Any, tmp_path: Path) -> None:
    check(injected(byte_level, tmp_path), byte_level)


def test_metaspace(metaspace: Any, tmp_path: Path) -> None:
    check(injected(metaspace, tmp_path), metaspace)


def test_published_tokenizers(real: Any, tmp_path: Path) -> None:
    made = injected(real, tmp_path)
    check(made, real)

    english = ENGLISH.read_text(encoding="utf-8")
    assert not list(Finder(made.id_map.words).find(english))
    cuts = [one(english, add_special_tokens=False)["input_ids"] for one in (made.tokenizer, real)]
    assert cuts[0] == cuts[1]


def test_ids_of_words_are_those_without_forms_and_forms_come_behind_them(byte_level: Any, tmp_path: Path) -> None:
    plain = inject(byte_level, WORDS, directory=tmp_path / "plain").id_map
    made = injected(byte_level, tmp_path)
    id_map = made.id_map

    assert id_map.entries == plain.entries
    assert [entry.id for entry in id_map.forms] == list(range(plain.n_ids, id_map.n_ids))
    spellings = [*id_map.words, *(spelt(id_map.words[entry.of], entry.form) for entry in id_map.forms)]
    assert spellings[id_map.word_of.tolist().index(1, 6)] == "prankquean"
    assert [OWN_IDS.index(entry.form) for entry in id_map.forms] == sorted(
        OWN_IDS.index(entry.form) for entry in id_map.forms
    )
    id_map.save(tmp_path / "map.json")
    assert load(tmp_path / "map.json") == id_map


def test_only_forms_that_are_asked_for_are_made(byte_level: Any, tmp_path: Path) -> None:
    made = injected(byte_level, tmp_path, {("riverrun", Form.BARE), ("unlisted", Form.BARE)})

    assert [(entry.of, entry.form) for entry in made.id_map.forms] == [(0, Form.BARE)]


def test_a_map_without_forms_is_written_as_it_always_was(byte_level: Any, tmp_path: Path) -> None:
    """Checkpoints know its hash."""
    inject(byte_level, WORDS, directory=tmp_path / "plain").id_map.save(tmp_path / "map.json")

    assert '"forms"' not in (tmp_path / "map.json").read_text()
    assert '"shared"' not in (tmp_path / "map.json").read_text()


def test_a_form_that_is_listed_belongs_to_its_own_word(byte_level: Any, tmp_path: Path) -> None:
    words = ("riverrun", "Riverrun", "PRANKQUEAN")
    forms = {(word, form) for word in words for form in OWN_IDS}
    id_map = inject(byte_level, words, directory=tmp_path / "tokenizer", forms=forms).id_map

    found = [(words[entry.of], spelt(words[entry.of], entry.form)) for entry in id_map.forms]
    assert ("riverrun", "Riverrun") not in found
    assert len({entry.token for entry in id_map.forms}) == len(id_map.forms)


def test_a_script_without_case_has_bare_forms_alone(byte_level: Any, tmp_path: Path) -> None:
    forms = {("নদী", form) for form in OWN_IDS}
    id_map = inject(byte_level, ["নদী"], directory=tmp_path / "tokenizer", forms=forms).id_map

    assert [entry.form for entry in id_map.forms] == [Form.BARE]


@pytest.mark.parametrize("text", ["riverruns", "priverrun", "Riverrunx", "ARIVERRUN"])
def test_no_form_is_reached_inside_another_word(text: str, byte_level: Any, tmp_path: Path) -> None:
    made = injected(byte_level, tmp_path)

    for before in ("", " ", "—"):
        ids = made.tokenizer(before + text, add_special_tokens=False)["input_ids"]
        assert max(ids) < made.id_map.first_new_id
