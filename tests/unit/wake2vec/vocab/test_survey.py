"""The lexicon report counts what injection does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wake2vec.contract.options import SurveyOptions
from wake2vec.contract.words.lexicon import read_lexicon
from wake2vec.data.corpus import open_corpus
from wake2vec.use.__main__ import use
from wake2vec.vocab.survey import Survey, as_json, survey
from wake2vec.vocab.survey_text import as_text, bars

TEXT = "The riverrun past.\nriverrun and Riverrun, prankquean church-ways riverrun\n" * 3 + "gracehoper " * 4


@pytest.fixture
def found(byte_level: Any, tmp_path: Path) -> Survey:
    (tmp_path / "lexicon.txt").write_text("riverrun\n\ne\nprankquean\nmissing\nriverrun\n")
    (tmp_path / "text.txt").write_text(TEXT)

    return survey(
        read_lexicon(tmp_path / "lexicon.txt"),
        byte_level,
        model="tiny",
        corpus=open_corpus([tmp_path / "text.txt"]),
    )


def test_known_and_new_words_are_told_apart(found: Survey, byte_level: Any) -> None:
    assert (found.words, found.known, found.new, found.reachable) == (4, 1, 3, 3)
    assert (found.first_new_id, found.tokenizer_size) == (len(byte_level), len(byte_level) + 3)
    assert (found.blank_lines, found.duplicate_lines) == ((2,), (6,))


def test_new_words_are_one_token_afterwards(found: Survey) -> None:
    assert found.tokens_per_word_before > 3
    # three new words of one token; " e" is two, although "e" is a base token
    assert found.tokens_per_word_after == 5 / 4
    assert sum(found.pieces.values()) == 4
    assert (found.longest[0].word, found.longest[0].tokens) == ("missing", 8)


def test_the_corpus_gets_shorter_by_the_words_that_are_reached(found: Survey) -> None:
    gain = found.corpus

    assert gain is not None
    assert gain.characters == len(TEXT)
    # at the start of a line, without its space, or with a capital, a word is not the token
    assert (gain.places.occurrences, gain.places.met) == (15, 9)
    assert gain.tokens_after < gain.tokens_before
    assert gain.absent == ("e", "missing")


def test_frequent_broken_words_outside_the_lexicon_are_suggested(found: Survey) -> None:
    assert found.corpus is not None
    suggested = {one.word: one.count for one in found.corpus.suggested}

    assert suggested["gracehoper"] == 4
    assert suggested["church-ways"] == 3
    assert not {"riverrun", "Riverrun", "missing"} & set(suggested)


def test_json_carries_every_figure(found: Survey) -> None:
    data = json.loads(as_json(found))

    assert data["new"] == 3
    assert (data["occurrences"], data["occurrences_met"]) == (15, 9)
    assert (data["types_present"], data["types_never_met"]) == (2, 0)
    assert data["by_form"]["spaced capitalised"] == {"occurrences": 3, "met": 0, "base": 0}
    assert data["corpus"]["by_form"]["bare"]["occurrences"] == 3
    assert data["corpus"]["tokens_per_character_after"] < data["corpus"]["tokens_per_character_before"]


def test_the_chart_has_a_bar_for_each_figure(found: Survey) -> None:
    lines = as_text(found).splitlines()

    assert "  known already      1  " + "█" * 13 + "▍" in lines
    assert "  new                3  " + "█" * 40 in lines
    assert "  new, out of reach  0" in lines
    assert "out of reach: " not in as_text(found)
    assert next(line for line in lines if line.startswith("never in the text")) == (
        "never in the text: 2 words (e, missing)"
    )


def test_a_bar_is_as_long_as_its_share_and_nothing_is_not_hidden() -> None:
    assert bars("of them", {"many": (1000, "1,000"), "one": (1, "1"), "none": (0, "0")}) == [
        "of them",
        "  many  1,000  " + "█" * 40,
        "  one       1  ▏",
        "  none      0",
    ]


def test_the_command_tells_an_error_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lexicon.txt").write_text("two words\n")

    assert use(SurveyOptions(lexicon=tmp_path / "lexicon.txt", model="none")) == 1

    assert capsys.readouterr().err.splitlines() == [
        f"error: {tmp_path / 'lexicon.txt'}: line 1: 'two words' has a space in it; write one word on each line"
    ]


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lexicon.txt").write_text("word\n")
    (tmp_path / "empty").mkdir()

    assert use(SurveyOptions(lexicon=tmp_path / "lexicon.txt", model=str(tmp_path / "empty"))) == 1

    assert "its tokenizer cannot be loaded" in capsys.readouterr().err


def test_with_forms_every_place_is_met(byte_level: Any, tmp_path: Path) -> None:
    (tmp_path / "lexicon.txt").write_text("riverrun\nprankquean\n")
    (tmp_path / "text.txt").write_text(TEXT)
    lexicon, corpus = read_lexicon(tmp_path / "lexicon.txt"), open_corpus([tmp_path / "text.txt"])

    found = survey(lexicon, byte_level, model="tiny", corpus=corpus, forms=True)

    assert (found.new, found.forms) == (2, 2)  # riverrun bare and capitalised
    assert found.corpus is not None
    assert found.corpus.places.met == found.corpus.places.occurrences == 15
    assert "2 of them for forms of words" in as_text(found)


@pytest.mark.parametrize(("listed", "printed"), [("mole's", "mole’s"), ("mole’s", "mole's")])
def test_places_with_the_other_apostrophe_are_told(byte_level: Any, tmp_path: Path, listed: str, printed: str) -> None:
    (tmp_path / "lexicon.txt").write_text(f"riverrun\n{listed}\n")
    (tmp_path / "text.txt").write_text(f"the riverrun, a {printed}, {printed} and a {listed} past " * 3)
    lexicon, corpus = read_lexicon(tmp_path / "lexicon.txt"), open_corpus([tmp_path / "text.txt"])

    found = survey(lexicon, byte_level, model="tiny", corpus=corpus)

    assert json.loads(as_json(found))["corpus"]["other_apostrophes"] == {printed: 6}
    assert f"6 places of the text would be met if the list had the other apostrophe ({printed} for {listed})" in (
        as_text(found)
    )
