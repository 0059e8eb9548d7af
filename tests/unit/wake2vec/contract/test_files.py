from __future__ import annotations

from pathlib import Path

import pytest

from wake2vec.contract.errors import InputError
from wake2vec.contract.files import at, make_directory, put_in_place, read_json, read_utf8, write_atomic, write_json


def test_a_write_that_fails_leaves_the_old_body_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "value.json"
    write_json(path, {"old": True})

    with pytest.raises(TypeError):
        write_atomic(path, "not bytes")  # type: ignore[arg-type]

    assert read_json(path) == {"old": True}
    assert [entry.name for entry in path.parent.iterdir()] == ["value.json"]


def test_a_folder_is_put_in_place_whole_and_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    final, temporary = tmp_path / "final", tmp_path / "final.tmp"
    (final / "old").mkdir(parents=True)
    make_directory(temporary / "deep" / "er")
    (temporary / "deep" / "er" / "file").write_text("text")

    put_in_place(temporary, final)

    assert sorted(path.name for path in final.rglob("*")) == ["deep", "er", "file"]
    assert not temporary.exists()


def test_what_stands_in_a_nested_table_is_found_by_its_keys() -> None:
    table = {"lora": {"r": 4}}

    assert [at(table, key.split(".")) for key in ("lora.r", "lora.r.s", "none")] == [4, None, None]


def test_a_text_of_another_kind_is_converted_by_a_command_that_can_be_copied(tmp_path: Path) -> None:
    path = tmp_path / "my text.txt"
    path.write_bytes("hello".encode("utf-16"))

    with pytest.raises(InputError, match=r"iconv -f UTF-16 -t UTF-8 'my text\.txt' > utf8\.txt"):
        list(read_utf8(path))
