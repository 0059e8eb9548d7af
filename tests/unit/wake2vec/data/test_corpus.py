"""Reading text files: what is kept, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from wake2vec.contract import files
from wake2vec.contract.errors import InputError
from wake2vec.data.corpus import open_corpus


def test_line_breaks_and_a_byte_order_mark_are_all_that_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo\rthree\n  e\u0301 é\t\x0b".encode())

    assert open_corpus([path]).text() == "one\ntwo\nthree\n  e\u0301 é\t\x0b"


@pytest.mark.parametrize("size", range(1, 9))
def test_the_seams_of_reading_do_not_show(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffé\r\n森\r🜁\r\n".encode())
    monkeypatch.setattr(files, "READ_BYTES", size)

    assert open_corpus([path]).text() == "é\n森\n🜁\n"


def test_files_are_joined_by_one_line_break(tmp_path: Path) -> None:
    for name, text in (("a", "one"), ("b", "two\n"), ("c", "three")):
        (tmp_path / name).write_text(text)

    assert open_corpus([tmp_path / "a", tmp_path / "b", tmp_path / "c"]).text() == "one\ntwo\nthree"


def test_sizes_are_those_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("é森\n" * 1000, encoding="utf-8")

    found = open_corpus([path])

    assert (found.characters, found.bytes) == (3000, 6000)


def test_the_lexicon_is_part_of_the_identity_but_not_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")

    plain, with_words = open_corpus([path]), open_corpus([path], lexicon=["riverrun", "past"])

    assert with_words.text() == "text"
    assert with_words.appended == "\n riverrun\n past"
    assert with_words.sha256 != plain.sha256


@pytest.mark.parametrize("before", [0, 5, (1 << 20) - 1, (1 << 20) + 3])
def test_a_byte_that_is_not_utf8_is_named(tmp_path: Path, before: int) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * before + b"\xe9t\xe9")

    with pytest.raises(InputError, match=rf"not UTF-8: byte 0xe9 at offset {before}\b"):
        open_corpus([path])


def test_a_character_cut_off_by_the_end_of_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"abc\xe6\xa3")

    with pytest.raises(InputError, match="byte 0xe6 at offset 3"):
        open_corpus([path])


@pytest.mark.parametrize("content", [b"", b" \n\t\r\n", b"\xef\xbb\xbf"])
def test_an_empty_text_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)

    with pytest.raises(InputError, match=r"a\.txt: the text is empty"):
        open_corpus([path])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.txt: No such file"):
        open_corpus([tmp_path / "nowhere.txt"])
