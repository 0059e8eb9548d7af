from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from wake2vec.contract.spec import JobSpec, VocabTable

P1: dict[str, Any] = {
    "name": "qwen_p1",
    "phase": "p1",
    "model": {"base": "Qwen/Qwen2.5-14B"},
    "vocab": {"lexicon": "words.txt"},
    "data": {"corpus": "text.txt"},
    "train": {"steps": 1300, "lr": 5e-4},
}


def job(**changes: Any) -> JobSpec:
    table = {key: dict(value) if isinstance(value, dict) else value for key, value in P1.items()}
    for dotted, value in changes.items():
        part: Any = table
        *folders, key = dotted.split("__")
        for folder in folders:
            part = part.setdefault(folder, {})
        part[key] = value
    return JobSpec.model_validate(table)


@pytest.mark.parametrize("name", ["../x", "/abs", "a/b", "", ".hidden", "x\n", "a" * 81, "tab\there", "nul\x00"])
def test_a_name_cannot_leave_its_directory(name: str) -> None:
    with pytest.raises(ValidationError):
        job(name=name)


def test_a_job_survives_the_way_through_json() -> None:
    assert JobSpec.model_validate_json(job().model_dump_json()) == job()


def test_steps_and_epochs_together_are_refused() -> None:
    with pytest.raises(ValidationError, match="one of the two"):
        job(train__epochs=2.0)


def test_a_stop_rule_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValidationError, match="val > NATS at STEP"):
        job(evaluate__stop_if="loss above 5")


@pytest.mark.parametrize(("init", "given", "output"), [
    ("subwords", None, "first_piece"), ("mean", None, "mean"), ("subwords", "subwords", "subwords"),
])  # fmt: skip
def test_output_rows_start_at_the_first_piece_unless_told(init: str, given: str | None, output: str) -> None:
    table = VocabTable.model_validate({"lexicon": "words.txt", "init": init, "init_output": given})

    assert table.output_init == output
