"""Lines of print become paragraphs, what means something stays, and every byte of the original keeps its token."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.material.tiny import make_tokenizer
from wake2vec.data.corpus import open_corpus
from wake2vec.data.dataset import prepare
from wake2vec.data.lines import Break, Print, as_printed, join_lines
from wake2vec.data.tokens import tokenise

PROSE = (
    "The river ran past the church and the people of the town ran with it to the sea. Nobody knew where it came from, "
    "and nobody asked; it was there before the houses were, and would be there when they had gone. "
) * 3
PRINTED = textwrap.fill(PROSE, 60)
VERSE = "\n".join(
    [
        "Who goes there in the early morning of the year so very soon",
        "And comes again at evening with a white and rising moon",
    ]
    * 3
)


class Text:
    def __init__(self, *parts: str) -> None:
        self.parts = parts

    def pieces(self) -> Any:
        return iter(self.parts)


def joined(text: str, hyphens: Any = "keep") -> str:
    found = as_printed(Text(text), "join", hyphens)
    assert found is not None
    return join_lines(text, found).text


def test_lines_of_print_become_the_paragraph_that_they_were() -> None:
    assert joined(f"{PRINTED}\n\n{PRINTED}\n") == f"{PROSE.strip()}\n\n{PROSE.strip()}\n"


@pytest.mark.parametrize(
    ("kept", "kind"),
    [
        (f"{PRINTED}\n    Then it rained.", Break.INDENT),
        (f"{PRINTED}\n—Is it you? he asked of the one who had come in.", Break.DASH),
        (f"{PRINTED}\n\n{VERSE}", Break.VERSE),
        (f"{PRINTED}\nIt rained.\nNobody came.", Break.SHORT),
    ],
)
def test_a_break_that_means_something_stays(kept: str, kind: Break) -> None:
    found = as_printed(Text(kept), "join")

    assert found is not None
    assert found.counts[kind]
    assert kept.removeprefix(PRINTED) in join_lines(kept, found).text


def test_auto_leaves_paragraphs_alone_and_joins_print() -> None:
    paragraphs = "\n".join([PROSE, "—No.", PROSE])

    assert as_printed(Text(paragraphs), "auto") is None
    assert as_printed(Text(VERSE), "auto") is None
    assert as_printed(Text(PRINTED), "auto") is not None
    assert as_printed(Text(PRINTED), "keep") is None


def test_a_text_without_case_is_judged_by_its_even_lines() -> None:
    text = textwrap.fill("নদী বয়ে যায় সাগরের দিকে " * 40, 60)

    assert as_printed(Text(text), "auto") is not None
    assert joined(text).count("\n") == 0


def test_no_space_comes_between_characters_of_scripts_without_spaces() -> None:
    text = "\n".join(["川は流れて町を過ぎ海へと向かうその水は誰のものでもなく昔からそこにあったのだと人は言う"] * 5)

    assert joined(text) == text.replace("\n", "")


@pytest.mark.parametrize(("hyphens", "word"), [("keep", "riv-er"), ("mend", "river")])
def test_a_hyphen_at_the_end_of_a_line_is_kept_or_mended_as_asked(hyphens: Any, word: str) -> None:
    text = PRINTED + " and the riv-\n" + "er " + PRINTED

    assert f"and the {word} The river" in joined(text, hyphens)


def test_the_pieces_that_a_text_comes_in_change_nothing() -> None:
    whole = as_printed(Text(PRINTED), "auto")

    assert as_printed(Text(PRINTED[:100], PRINTED[100:333], PRINTED[333:]), "auto") == whole


def test_what_was_done_is_told_with_counts() -> None:
    found = as_printed(Text(f"{PRINTED}\n\n{PRINTED}\n"), "auto")

    assert found is not None
    breaks = 2 * PRINTED.count("\n")
    assert found.told() == f"{breaks:,} of {breaks + 3:,} line breaks joined (kept: 3 blank)"


@given(text=st.text(alphabet="ab cdéB-—.\n\n川", max_size=200), full=st.integers(0, 12), mend=st.booleans())
def test_ends_never_go_back_and_reach_the_end(text: str, full: int, mend: bool) -> None:
    found = join_lines(text, Print(full=full, hyphens="mend" if mend else "keep", counts=None))  # type: ignore[arg-type]

    assert len(found.ends) == len(found.text) + 1
    assert (np.diff(found.ends) >= 0).all()
    assert found.ends[-1] == len(text)


@pytest.mark.parametrize("hyphens", ["keep", "mend"])
def test_bytes_are_those_of_the_original_text(hyphens: Any) -> None:
    text = PRINTED.replace("people", "péople") + " and the riv-\n" + "er  \n" + PRINTED
    tokenizer = make_tokenizer(PROSE, 300)
    found = as_printed(Text(text), "join", hyphens)

    tokens = tokenise(tokenizer, text, "text", found)

    assert tokens.byte_ends[-1] == len(text.encode())
    assert (np.diff(tokens.byte_ends) >= 0).all()


@pytest.mark.parametrize("split", ["text", "blocks"])
def test_the_same_bytes_are_held_out_whether_lines_are_joined_or_not(split: Any, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join([PRINTED] * 40))
    tokenizer, corpus = make_tokenizer(PROSE, 300), open_corpus([tmp_path / "text.txt"])

    kept = prepare(corpus, tokenizer, seq_len=32, split=split)
    found = prepare(corpus, tokenizer, seq_len=32, split=split, line_breaks="auto", cache_dir=tmp_path / "tokens")

    assert kept.lines is None
    assert found.lines is not None
    assert found.lines.counts[Break.JOINED]
    if split == "text":
        # the first token of each span is asked of nobody, and holds a byte or two more
        assert abs(found.held_out.n_bytes - kept.held_out.n_bytes) < 0.01 * kept.held_out.n_bytes
