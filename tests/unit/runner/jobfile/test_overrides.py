from __future__ import annotations

import pytest

from runner.errors import RunnerError
from runner.jobfile.overrides import lay_over, read_pair


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("train.lr=1e-4", ("train.lr", 1e-4)),
        ("data.corpus=[\"a\", 'b']", ("data.corpus", ["a", "b"])),
        (" evaluate.prompt = so long ", ("evaluate.prompt", "so long")),
        ("a=b=c", ("a", "b=c")),
    ],
)
def test_a_pair_is_read_as_in_a_job_file(text, pair):
    assert read_pair(text) == pair


@pytest.mark.parametrize("text", ["", "=1", "train.lr", "train..lr=1", ".=1", f"a={'[' * 5000}"])
def test_what_is_no_pair_is_refused(text):
    with pytest.raises(RunnerError):
        read_pair(text)


def test_values_are_laid_over_and_tables_made_where_there_are_none():
    table = {"train": {"lr": 1.0}}

    lay_over(table, [("train.lr", 2.0), ("lora.r", 4), ("name", "x")])

    assert table == {"train": {"lr": 2.0}, "lora": {"r": 4}, "name": "x"}
