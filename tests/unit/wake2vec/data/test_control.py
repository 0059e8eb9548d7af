"""English that no job trains on: large enough for an interval, and the page of the curve what it always was."""

from __future__ import annotations

import hashlib

from wake2vec.data.control import english_text, registers


def test_the_page_of_the_curve_is_the_one_that_queued_jobs_began_with() -> None:
    expected = "53d5173ed6e349a4af0e46c516dd82f18384bfa475ca87d9f9711941f53f030e"
    assert hashlib.sha256(english_text().encode()).hexdigest() == expected
    assert registers()["Austen"].text == english_text()


def test_three_kinds_of_english_are_large_enough_for_an_interval() -> None:
    large = [one.text for one in registers().values() if len(one.text.encode()) >= 30_000]
    lines = [set(text.split("\n")) - {""} for text in large]

    assert len(large) == 3
    assert not any(one & other for one in lines for other in lines if one is not other)
