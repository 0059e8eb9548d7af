"""Reading a lexicon: what counts as a word, what is passed over, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from wake2vec.contract.errors import InputError
from wake2vec.contract.words.lexicon import read_lexicon


def lexicon(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "lexicon.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_words_keep_their_order_stripped_and_composed(tmp_path: Path) -> None:
    path = lexicon(tmp_path, "\ufeffriverrun\r\n  tip-top\t\no'er\npau\u0300\n")

    assert read_lexicon(path).words == ("riverrun", "tip-top", "o'er", "paù")


def test_blank_and_repeated_lines_are_told_by_number(tmp_path: Path) -> None:
    found = read_lexicon(lexicon(tmp_path, "\none\n\ntwo\none\nTwo\n\u0065\u0301\né"))

    assert found.words == ("one", "two", "Two", "é")
    assert found.blanks == (1, 3)
    assert found.duplicates == (5, 8)
    assert [remark.split(": ", 1)[1] for remark in found.remarks()] == [
        "2 blank lines (1, 3) passed over",
        "2 duplicate lines (5, 8) passed over",
    ]


def test_many_lines_are_told_in_short(tmp_path: Path) -> None:
    (remark,) = read_lexicon(lexicon(tmp_path, "one\n" * 10)).remarks()

    assert remark.endswith("9 duplicate lines (2, 3, 4, 5, 6 and 4 more) passed over")


@pytest.mark.parametrize("mark", [",", ";"])
def test_a_mark_that_ends_most_words_is_told_since_it_becomes_part_of_them(tmp_path: Path, mark: str) -> None:
    (remark,) = read_lexicon(lexicon(tmp_path, f"one{mark}\ntwo{mark}\nthree\n")).remarks()

    assert remark == f"lexicon.txt: 2 of its words end in '{mark}', which is taken as part of them"


def test_what_looks_like_a_comment_is_told_since_it_becomes_a_word(tmp_path: Path) -> None:
    (remark,) = read_lexicon(lexicon(tmp_path, "#mine\none\n")).remarks()

    assert remark.endswith("1 of its words begin with '#', which is taken as part of them: a word list has no comments")


def test_a_text_in_place_of_a_list_is_not_repeated_whole(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        read_lexicon(lexicon(tmp_path, "riverrun past Eve " * 100_000))

    assert len(str(raised.value)) < 200 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("one\ntwo words\n", "line 2: 'two words' has a space in it"),
        ("# of mine\none\n", "line 1: '# of mine' has a space in it; a word list has no comments: remove it"),
        ("one\ntwo\u00a0words", "line 2: .* has a space in it"),
        ("one\x07", r"line 1: 'one\\x07' has the control character"),
        ("a\nsoft\u00adhyphen", "line 2: .* has the control character"),
        (b"one\ntw\xe9", r"line 2: byte 6 \(0xe9\) is not UTF-8"),
        ("", "the lexicon has no words"),
        ("\n \n", "the lexicon has no words"),
    ],
)
def test_a_faulty_lexicon_is_refused_with_its_line(tmp_path: Path, content: str | bytes, problem: str) -> None:
    with pytest.raises(InputError, match=rf"lexicon\.txt: {problem}"):
        read_lexicon(lexicon(tmp_path, content))


def test_a_missing_lexicon_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.txt: No such file"):
        read_lexicon(tmp_path / "nowhere.txt")
