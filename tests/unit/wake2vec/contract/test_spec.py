from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from wake2vec.contract.order import fingerprint
from wake2vec.contract.spec import JOB_SPEC, CommandSpec, JobSpec, JobTable, P1Spec, P2Spec
from wake2vec.contract.tables import LoraTable, VocabTable

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
    return JOB_SPEC.validate_python(table)


@pytest.mark.parametrize("name", ["../x", "/abs", "a/b", "", ".hidden", "x\n", "a" * 81, "tab\there", "nul\x00"])
def test_a_name_cannot_leave_its_directory(name: str) -> None:
    with pytest.raises(ValidationError):
        job(name=name)


def test_a_job_survives_the_way_through_json() -> None:
    assert JOB_SPEC.validate_json(job().model_dump_json()) == job()


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


P2: dict[str, Any] = {key: P1[key] for key in ("model", "data", "train")} | {
    "name": "qwen_p2", "phase": "p2", "after": "qwen_p1",
}  # fmt: skip


@pytest.mark.parametrize(("table", "kind"), [
    (P1, P1Spec), (P2, P2Spec), ({"name": "own", "phase": "command", "command": ["python"], "steps": 3}, CommandSpec),
])  # fmt: skip
def test_a_phase_has_what_it_needs_and_is_read_again_from_what_is_stored(table: dict[str, Any], kind: type) -> None:
    found = JOB_SPEC.validate_python(table)

    assert type(found) is kind
    assert set(found.model_dump()) == set(
        JobTable.model_fields
    )  # as jobs were always stored: what is not there is null
    assert JOB_SPEC.validate_python(found.model_dump()) == found


def test_a_p2_without_lora_has_its_defaults_and_is_another_job_than_one_that_says_them() -> None:
    silent, said = JOB_SPEC.validate_python(P2), JOB_SPEC.validate_python(P2 | {"lora": {}})

    assert silent.lora == said.lora == LoraTable()
    assert silent.model_dump()["lora"] is None
    assert said.model_dump()["lora"] == LoraTable().model_dump()
    assert fingerprint(silent, []) == fingerprint(JOB_SPEC.validate_json(silent.model_dump_json()), [])
    assert fingerprint(silent, []) != fingerprint(said, [])


def test_what_a_file_may_hold_is_what_its_phase_can_be_read_as() -> None:
    for table in (P1, P2, P1 | {"lora": {}}, P2 | {"after": None}, P1 | {"vocab": None}):
        outcomes = []
        for read in (JobTable.model_validate, JOB_SPEC.validate_python):
            try:
                outcomes.append(read(table).model_dump())
            except ValidationError:
                outcomes.append({})
        assert outcomes[0] == outcomes[1]
