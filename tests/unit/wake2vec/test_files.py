from __future__ import annotations

from pathlib import Path

import pytest

from wake2vec.files import read_json, write_atomic, write_json


def test_a_write_that_fails_leaves_the_old_body_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "value.json"
    write_json(path, {"old": True})

    with pytest.raises(TypeError):
        write_atomic(path, "not bytes")  # type: ignore[arg-type]

    assert read_json(path) == {"old": True}
    assert [entry.name for entry in path.parent.iterdir()] == ["value.json"]
