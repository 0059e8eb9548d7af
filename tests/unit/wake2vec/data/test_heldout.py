"""Held-out spans are chosen on the text, by seed, and lose nothing."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wake2vec.contract.errors import InputError
from wake2vec.data.heldout import choose, spans_of_text

WORDS = st.lists(st.sampled_from(["riverrun", "past", "é", "森", "\n\n", "\n", "Eve and Adam's,", "\t"]), min_size=1)
TEXTS = st.builds(lambda words, times: (" ".join(words) + "\n") * times, WORDS, st.integers(1, 2000))


def pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


@given(text=TEXTS, size=st.integers(1, 5000), seed=st.integers(0, 9))
def test_spans_are_the_whole_text_however_it_was_read(text: str, size: int, seed: int) -> None:
    text = text[:40_000]
    chosen = choose(pieces(text, size), fraction=0, seed=seed, place="text")

    assert chosen == choose([text], fraction=0, seed=seed, place="text")
    assert "".join(part for _, part in spans_of_text(pieces(text, size), chosen)) == text


@given(seed=st.integers(0, 200), fraction=st.sampled_from([0.02, 0.1, 0.3, 0.5]))
def test_the_fraction_of_characters_is_held_out(seed: int, fraction: float) -> None:
    text = "It was a long paragraph, and it went on for a while.\n\n" * 8000

    chosen = choose([text], fraction=fraction, seed=seed, place="text")

    held_out = sum(span.characters for span in chosen if span.held_out)
    assert held_out / len(text) == pytest.approx(fraction, abs=0.004)


def test_training_spans_between_held_out_ones_are_joined() -> None:
    spans = choose(["word " * 40_000], fraction=0.1, seed=1, place="text")

    neighbours = itertools.pairwise(spans)
    assert all(one.held_out or other.held_out for one, other in neighbours)
    assert [span.start for span in spans[1:]] == [span.end for span in spans[:-1]]


def test_cuts_fall_between_paragraphs_where_there_are_any() -> None:
    text = ("A sentence of a paragraph. " * 20 + "\n\n") * 200

    spans = list(spans_of_text([text], choose([text], fraction=0.2, seed=3, place="text")))

    assert all(part.endswith("\n\n") and part.startswith("A sentence") for _, part in spans)


def test_a_text_without_a_space_is_cut_too() -> None:
    assert sum(span.held_out for span in choose(["x" * 50_000], fraction=0.1, seed=1, place="text")) >= 2


def test_seeds_choose_differently() -> None:
    text = "word " * 40_000

    one, other = (choose([text], fraction=0.1, seed=seed, place="text") for seed in (1, 2))

    assert one != other


def test_a_text_too_short_to_hold_out_is_refused() -> None:
    with pytest.raises(InputError, match=r"my\.txt: the text has 1 span\(s\) .* too few to hold out 0\.1 of it"):
        choose(["short"], fraction=0.1, seed=1, place="my.txt")
