"""Group files as people have them, and what is wrong with them, by line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wake2vec.contract.errors import InputError
from wake2vec.contract.words.groups import Group, large_enough, members, read_groups, screen

ING = {"morpheme": "-ing", "morpheme_type": "suffix", "examples": ["going", "doing"], "bases": ["go", "do"],
       "n_examples": 2}  # fmt: skip


def written(folder: Path, *lines: object) -> Path:
    path = folder / "groups.jsonl"
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines), "utf-8")
    return path


def test_both_shapes_are_read_as_they_are(tmp_path):
    pun = {"device": "pun", "examples": ["funferal"]}

    assert read_groups(written(tmp_path, ING, ""), "morpheme") == [
        Group(name="-ing", line=1, words=("going", "doing"), bases=("go", "do"))
    ]
    assert read_groups(written(tmp_path, pun), "device") == [Group(name="pun", line=1, words=("funferal",))]


def test_every_faulty_line_is_named(tmp_path):
    path = written(tmp_path, ING, "{", [1], {"device": "pun", "examples": ["x"]}, {**ING, "bases": ["go"]},
                   {**ING, "examples": "going"})  # fmt: skip

    with pytest.raises(InputError) as told:
        read_groups(path, "morpheme")

    for part in ("line 2: not JSON", "line 3: has no morpheme", "line 4: has no morpheme",
                 "line 5: '-ing' has 2 examples but 1 bases", "line 6: examples is no list"):  # fmt: skip
        assert part in str(told.value)


def test_an_empty_file_is_told_with_what_belongs_there(tmp_path):
    with pytest.raises(InputError, match="has no group; write lines such as"):
        read_groups(written(tmp_path), "device")


def test_pairs_that_cannot_be_used_are_left_out_by_reason():
    group = Group(name="-s", line=7, words=("cats", "cats", "dogs", "runs", "s", "Darkness"),
                  bases=("cat", "cat", "dog", "run", "s", "Darknes"))  # fmt: skip
    found = screen([group], rows={"cats", "runs", "Darkness", "s"}, attested={"cat", "run"}, any_pair=False)

    assert [(pair.word, pair.base) for pair in found.pairs] == [("cats", "cat"), ("runs", "run")]
    assert found.dropped == {
        "the word comes twice in its group": ["line 7: cats, cat"],
        "the word has no row of its own": ["line 7: dogs, dog"],
        "the word is its base, or one is empty": ["line 7: s, s"],
        "the base is no word of the list or the text": ["line 7: Darkness, Darknes"],
    }
    assert "left out" in found.remarks("groups.jsonl")[0]
    assert large_enough(found.pairs, 3) == []


def test_any_pair_will_do_that_has_a_row_in_it():
    group = Group(name="-s", line=1, words=("dogs",), bases=("dog",))

    assert len(screen([group], rows={"dog"}, attested=(), any_pair=True).pairs) == 1
    assert len(screen([group], rows={"dog"}, attested=(), any_pair=False).pairs) == 0


def test_a_word_is_of_the_first_device_that_names_it():
    groups = [Group(name="pun", line=1, words=("a", "b")), Group(name="nonce", line=2, words=("b", "c", "d"))]

    assert list(members(groups, {"a", "b", "c"})) == [("a", "pun"), ("b", "pun"), ("c", "nonce")]
