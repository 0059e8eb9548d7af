"""The longest shared run of words, against every pair of places."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wake2vec.show.overlap import longest_overlap


def by_trying_everything(text: str, corpus: str) -> int:
    words, others = text.split(), corpus.split()
    held = {tuple(others[i:j]) for i in range(len(others)) for j in range(i + 1, len(others) + 1)}
    runs = (tuple(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1))
    return max((len(run) for run in runs if run in held), default=0)


@given(st.lists(st.sampled_from("abc"), max_size=14), st.lists(st.sampled_from("abc"), max_size=24))
def test_it_is_what_trying_every_pair_of_places_finds(text: list[str], corpus: list[str]) -> None:
    overlap = longest_overlap(" ".join(text), " ".join(corpus))

    assert overlap.words == by_trying_everything(" ".join(text), " ".join(corpus))
    assert f" {overlap.text} ".strip() in " ".join(corpus)
    assert len(overlap.text.split()) == overlap.words


def test_white_space_does_not_count_and_punctuation_does() -> None:
    overlap = longest_overlap("so a way a lone a last", "A way a\n\nlone  a last a loved")

    assert overlap.text == "way a lone a last"
    assert longest_overlap("riverrun, past", "riverrun past").words == 1
