"""What makes two orders the same work."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from tests.unit.wake2vec.contract.test_spec import job
from wake2vec.contract.order import AS_BEFORE, PLAN_AND_CADENCE, InputFile, fingerprint
from wake2vec.contract.spec import JOB_SPEC

INPUTS = [InputFile(role="corpus", name="text.txt", sha256="a" * 64, size=5)]


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoint__every_steps": 7},
        {"runner__priority": 3},
        {"train__micro_batch": 4},
        {"train__layers": "offload"},
        {"train__allow_shorter_context": False},
        {"name": "other"},
        {"evaluate__hopes": False},
        {"evaluate__controls": ["elsewhere.txt"]},
        {"data__corpus": "elsewhere/text.txt"},
    ],
)
def test_plan_cadence_and_places_do_not_change_what_a_job_is(changes: dict[str, Any]) -> None:
    assert fingerprint(job(**changes), INPUTS) == fingerprint(job(), INPUTS)


@pytest.mark.parametrize(
    "changes",
    [
        {"train__lr": 1e-4},
        {"train__batch": 8},
        {"train__seed": 1},
        {"data__seed": 1},
        {"data__seq_len": 128},
        {"vocab__init": "mean"},
        {"vocab__rows": "input"},
        {"vocab__dtype": "bf16"},
        {"vocab__dtype": "fp16"},
        {"evaluate__patience": 2},
        {"model__base": "Qwen/Qwen2.5-7B"},
        {"model__load": "nf4"},
    ],
)
def test_whatever_decides_the_result_changes_what_a_job_is(changes: dict[str, Any]) -> None:
    assert fingerprint(job(**changes), INPUTS) != fingerprint(job(), INPUTS)


def test_another_text_is_another_job() -> None:
    other = [InputFile(role="corpus", name="text.txt", sha256="b" * 64, size=5)]
    assert fingerprint(job(), other) != fingerprint(job(), INPUTS)


def test_a_control_text_decides_nothing() -> None:
    control = InputFile(role="control", name="minutes.txt", sha256="d" * 64, size=5)
    assert fingerprint(job(), [*INPUTS, control]) == fingerprint(job(), INPUTS)


def test_a_local_model_is_known_by_its_content_and_not_by_its_place() -> None:
    model = InputFile(role="model", name="model", sha256="c" * 64, size=5)
    here, there = job(model__base="/here/model"), job(model__base="/there/model")

    assert fingerprint(here, [*INPUTS, model]) == fingerprint(there, [*INPUTS, model])


@pytest.mark.parametrize("dotted", [dotted for dotted in AS_BEFORE if dotted.startswith(("data.", "vocab."))])
def test_a_key_that_came_later_changes_no_job_that_does_not_use_it(dotted: str) -> None:
    """A frozen job of the first release lacks the key, and must go on as the work that it was."""
    table, key = dotted.split(".")
    dumped = job().model_dump()
    del dumped[table][key]

    assert getattr(getattr(JOB_SPEC.validate_python(dumped), table), key) == AS_BEFORE[dotted]
    assert hashlib.sha256(_hashed(dumped).encode()).hexdigest() == fingerprint(job(), INPUTS)


def _hashed(table: dict[str, Any]) -> str:
    """As the first release wrote it down."""
    for dotted in PLAN_AND_CADENCE:
        *folders, key = dotted.split(".")
        (table[folders[0]] if folders else table).pop(key, None)
    for dotted in AS_BEFORE:
        *folders, key = dotted.split(".")
        ((table[folders[0]] or {}) if folders else table).pop(key, None)
    for key, folder in (("corpus", "data"), ("lexicon", "vocab"), ("morphemes", "vocab")):
        table[folder].pop(key, None)
    table["inputs"] = [(item.role, item.sha256) for item in INPUTS]
    return json.dumps(table, sort_keys=True)
