"""What an attempt says that cannot even begin."""

from __future__ import annotations

from pathlib import Path

import pytest

from wake2vec.__main__ import main
from wake2vec.files import write_json
from wake2vec.rundir import RunDir


def test_an_order_that_cannot_be_read_is_named_with_its_keys_and_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(root=tmp_path)
    write_json(run.order, {"attempt": "first", "inputs": []})

    code = main([str(tmp_path)])

    said = capsys.readouterr().err
    assert code == 1
    assert "attempt: Input should be a valid integer" in said
    assert said.splitlines()[-1].endswith("start the runner again, and it is written anew")
