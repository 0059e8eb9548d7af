"""What injection promises, on published tokenizers: SmolLM2, Qwen3, Mistral."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wake2vec.vocab.inject import Injection, inject, load_tokenizer

WORDS = [
    *(
        "riverrun",
        "prankquean",
        "gracehoper",
        "earwicker",
        "paùpulation",
        "générations",
        "finnegan",
        "thè",
        "ata",
        "hing",
    ),
    *(
        "tip-top",
        "hop-of-my-thumb",
        "o'er",
        "lick-pa-flai-hai",
        "gé-gé",
        "what's-his-name",
        "wher",
        "strop",
        "森の",
        "nig",
    ),
]
# ordinary words that hold lexicon words inside, and everything that may stand beside a word
PLAIN = [
    "catastrophe",
    "everything",
    "night",
    "the",
    "hinge",
    "where",
    "stationary",
    "don't",
    "Riverrun",
    "1922",
    "naïve",
]
BESIDE = [
    " ",
    " ",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    ", ",
    ".",
    "-",
    "'",
    "’s ",
    "“",
    "”",
    "(",
    ")",
    "_",
    "…",
    "—",
    "<0x0A>",
    "é",
]
TEXTS = st.lists(
    st.one_of(st.sampled_from(WORDS), st.sampled_from(PLAIN), st.sampled_from(BESIDE), st.text(max_size=3)), max_size=30
).map(lambda parts: unicodedata.normalize("NFC", "".join(parts)))
OTHER_TEXTS = st.lists(
    st.one_of(st.sampled_from(PLAIN), st.sampled_from(BESIDE), st.text(max_size=8)), max_size=30
).map(lambda parts: unicodedata.normalize("NFC", "".join(parts)))
often = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def done(real: Any, tmp_path_factory: pytest.TempPathFactory) -> Injection:
    return inject(real, WORDS, directory=tmp_path_factory.mktemp("injected"))


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_every_text_comes_back_as_from_the_base(real: Any, done: Injection) -> None:
    @often
    @given(text=TEXTS)
    def check(text: str) -> None:
        assert done.tokenizer.decode(ids(done.tokenizer, text)) == real.decode(ids(real, text))

    check()


def test_ordinary_text_comes_back_exactly(done: Injection) -> None:
    @often
    @given(parts=st.lists(st.sampled_from([*WORDS, *PLAIN, *BESIDE]), max_size=30))
    def check(parts: list[str]) -> None:
        text = "".join(parts).lstrip(" ")  # a space at the start is lost by Mistral's own tokenizer
        assert done.tokenizer.decode(ids(done.tokenizer, text)) == text

    check()


def test_text_without_new_words_is_cut_as_before(real: Any, done: Injection) -> None:
    @often
    @given(text=OTHER_TEXTS)
    def check(text: str) -> None:
        assert ids(done.tokenizer, text) == ids(real, text)

    check()


def test_only_whole_words_become_new_tokens(done: Injection) -> None:
    words = {entry.id: entry.word for entry in done.id_map.new}

    @often
    @given(text=TEXTS)
    def check(text: str) -> None:
        found = Counter(words[id_] for id_ in ids(done.tokenizer, text) if id_ in words)
        for word, times in found.items():
            assert times <= whole_words(text, word)

    check()


CONTRACTION = re.compile(r"'(?:[sdmt]|ll|ve|re)$", re.IGNORECASE)


def whole_words(text: str, word: str) -> int:
    """How often a word stands in a text with no letter beside it; written without the patterns under test.

    In "don'tnig" the published tokenizer itself ends a piece after 't: what follows stands as at the start of a text.
    """
    places = [place for place in range(len(text)) if text.startswith(word, place)]
    begun = [place for place in places if not letter(text[place - 1 : place]) or CONTRACTION.search(text[:place])]
    return sum(not letter(text[place + len(word) : place + len(word) + 1]) for place in begun)


def letter(text: str) -> bool:
    return bool(text) and unicodedata.category(text)[0] == "L"


def test_every_new_word_is_one_token_after_a_space(real: Any, done: Injection) -> None:
    one_already = [
        entry.id for entry in done.id_map.new if len(ids(real, f"see {entry.word}")) == len(ids(real, "see")) + 1
    ]

    for entry in done.id_map.new:
        assert entry.id in ids(done.tokenizer, f"see {entry.word}, see") or entry.id in one_already
    assert len(one_already) <= 1


def test_base_tokens_keep_their_ids(real: Any, done: Injection) -> None:
    base, after = real.get_vocab(), done.tokenizer.get_vocab()

    assert {token: after[token] for token in base} == base
    assert sorted(set(after.values()) - set(base.values())) == [entry.id for entry in done.id_map.new]


def test_saved_twice_it_is_still_the_same(done: Injection, tmp_path: Path) -> None:
    done.tokenizer.save_pretrained(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")

    text = " ".join([*WORDS, *PLAIN]) * 3
    assert ids(again, text) == ids(done.tokenizer, text)
