from __future__ import annotations

from pathlib import Path

import pytest

from wake2vec.contract.rundir import RunDir, read_result


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(root=tmp_path)


def test_a_torn_or_foreign_result_reads_as_none(run: RunDir) -> None:
    run.result.write_text('{"attempt": 1, "outc')
    assert read_result(run) is None
    run.result.write_text('{"something": "else"}')
    assert read_result(run) is None
