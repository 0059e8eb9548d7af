from __future__ import annotations

import hashlib

import pytest

from runner.errors import HomeUnusable
from runner.jobfile.inputs import keep_input
from wake2vec.contract.errors import InputError


def _source(folder, text="riverrun"):
    path = folder / "text.txt"
    path.write_text(text)
    return path, hashlib.sha256(text.encode()).hexdigest()


def test_an_input_is_kept_under_its_hash_and_cannot_be_edited(tmp_path):
    path, sha256 = _source(tmp_path)

    kept = keep_input(path, sha256, tmp_path / "inputs")

    assert kept.name == sha256
    assert kept.read_text() == "riverrun"
    assert kept.stat().st_mode & 0o222 == 0
    assert [file.name for file in kept.parent.iterdir()] == [sha256]


def test_keeping_it_twice_changes_nothing(tmp_path):
    path, sha256 = _source(tmp_path)
    first = keep_input(path, sha256, tmp_path / "inputs").stat()

    second = keep_input(path, sha256, tmp_path / "inputs").stat()

    assert (first.st_ino, first.st_mtime_ns) == (second.st_ino, second.st_mtime_ns)


def test_a_torn_copy_is_made_whole(tmp_path):
    path, sha256 = _source(tmp_path)
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / sha256).write_text("river")

    assert keep_input(path, sha256, tmp_path / "inputs").read_text() == "riverrun"


def test_a_text_that_changed_since_it_was_hashed_is_refused_and_not_kept(tmp_path):
    path, sha256 = _source(tmp_path)
    path.write_text("past eve")

    with pytest.raises(InputError, match="changed while it was read"):
        keep_input(path, sha256, tmp_path / "inputs")

    assert list((tmp_path / "inputs").iterdir()) == []


def test_a_home_that_cannot_take_it_says_so(tmp_path):
    path, sha256 = _source(tmp_path)
    (tmp_path / "inputs").write_text("a file where the folder should be")

    with pytest.raises(HomeUnusable, match=r"cannot keep text\.txt"):
        keep_input(path, sha256, tmp_path / "inputs")
