"""Words are found wherever they stand whole, each place in its form."""

from __future__ import annotations

import pytest

from wake2vec.contract.words.forms import Finder, Form, spelt

WORDS = ("riverrun", "mole's", "church-ways", "naïve", "BLOOM", "নদী")


def found(text: str) -> list[tuple[str, Form]]:
    return [(WORDS[place.word], place.form) for place in Finder(WORDS).find(text)]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("past riverrun,", Form.SPACED),
        ("past\nriverrun", Form.BARE),
        ("riverrun", Form.BARE),
        ("—riverrun", Form.BARE),
        ("“Riverrun”", Form.BARE_CAPITALISED),
        ("a Riverrun", Form.SPACED_CAPITALISED),
        ("a RIVERRUN", Form.SPACED_CAPITALS),
        ("(RIVERRUN)", Form.BARE_CAPITALS),
        ("a RiverRun", Form.OTHER),
    ],
)
def test_a_word_has_a_form_by_what_stands_before_it_and_by_its_letters(text: str, form: Form) -> None:
    assert found(text) == [("riverrun", form)]


def test_no_word_is_found_inside_another() -> None:
    assert found("riverruns priverrun riverrun2 riverru\u0300n riverrun\u0301") == []


def test_words_with_marks_in_them_are_found_whole_and_the_longest_first() -> None:
    assert found("the mole's Church-ways") == [("mole's", Form.SPACED), ("church-ways", Form.SPACED_CAPITALISED)]
    assert found("xchurch-ways church-waysx") == []


def test_letters_that_are_written_in_two_parts_are_the_same_word() -> None:
    assert found("so nai\u0308ve") == [("naïve", Form.SPACED)]


def test_a_listed_spelling_is_that_word_and_no_form_of_another() -> None:
    words = ("riverrun", "Riverrun")

    assert [(place.word, place.form) for place in Finder(words).find(" Riverrun RIVERRUN")] == [
        (1, Form.SPACED),
        (0, Form.SPACED_CAPITALS),
    ]


def test_a_script_without_case_has_words_after_a_space_and_bare_alone() -> None:
    assert found("এই নদী\nনদী") == [("নদী", Form.SPACED), ("নদী", Form.BARE)]
    assert {spelt("নদী", form) for form in Form} == {"নদী"}


def test_a_word_listed_in_capitals_is_met_in_small_letters_as_another_form() -> None:
    assert found("the Bloom of BLOOM") == [("BLOOM", Form.OTHER), ("BLOOM", Form.SPACED)]
