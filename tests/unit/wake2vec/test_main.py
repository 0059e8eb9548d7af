"""What an attempt says that cannot even begin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wake2vec.__main__ import main, use_growing_segments
from wake2vec.contract.files import write_json
from wake2vec.contract.rundir import RunDir


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


def test_the_allocator_grows_its_segments_unless_the_user_chose_otherwise() -> None:
    cases: tuple[tuple[dict[str, str], dict[str, str]], ...] = (
        ({}, {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}),
        ({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:128"}, {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:128"}),
        ({"PYTORCH_ALLOC_CONF": "backend:native"}, {"PYTORCH_ALLOC_CONF": "backend:native"}),
    )
    for chosen, expected in cases:
        use_growing_segments(chosen)
        assert chosen == expected


def test_torch_is_not_imported_before_the_allocator_is_chosen() -> None:
    code = "import sys, wake2vec.__main__; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )
