"""How far a checkpoint may be off, here and on another stack, before a person is asked."""

from __future__ import annotations

from typing import Any

import pytest

from wake2vec.contract.errors import StackChanged
from wake2vec.train.stack import changes, judge_probe, remedy_for

T4 = {"torch": "2.8.0", "transformers": "4.57.0", "card": "Tesla T4", "arithmetic": "12.8"}
L4 = T4 | {"torch": "2.9.1", "card": "NVIDIA L4"}


def judged(expected: float | None, found: float, was: dict[str, str] | None, now: dict[str, str], **more: Any) -> str:
    return judge_probe("checkpoint-8", expected=expected, found=found, was=was, now=now, **{"same_plan": True, **more})


def test_the_same_bits_on_the_same_stack_need_no_word() -> None:
    assert judged(5.0, 5.0, T4, T4) == ""


def test_other_bits_on_the_same_stack_are_told() -> None:
    assert (
        judged(5.0, 5.0 + 1e-7, T4, T4) == "goes on with the same versions and card; its probe loss is off by 1.00e-07"
    )


def test_another_stack_is_told_even_with_the_same_bits() -> None:
    assert judged(5.0, 5.0, T4, L4).startswith("goes on with torch 2.8.0 → 2.9.1, card Tesla T4 → NVIDIA L4")


def test_the_last_bits_of_another_plan_need_no_word() -> None:
    assert judged(5.0, 5.001, T4, T4, same_plan=False) == ""


@pytest.mark.parametrize(
    ("was", "now", "passed", "refused"),
    [(T4, T4, 5.004, 5.006), (T4, L4, 5.04, 5.06), (None, T4, 5.04, 5.06)],
    ids=["same", "other", "unknown"],
)
def test_beyond_the_limit_a_person_is_asked(
    was: dict[str, str] | None, now: dict[str, str], passed: float, refused: float
) -> None:
    judged(5.0, passed, was, now)

    with pytest.raises(StackChanged, match=r"its probe loss is 5\.0\d+ and it was saved with 5\.000000"):
        judged(5.0, refused, was, now)


@pytest.mark.parametrize("found", [float("nan"), float("inf")])
def test_what_is_not_finite_is_beyond_every_limit(found: float) -> None:
    with pytest.raises(StackChanged):
        judged(5.0, found, T4, L4)


def test_a_checkpoint_without_a_probe_cannot_be_off() -> None:
    assert judged(None, 5.0, T4, T4) == ""


def test_the_remedy_is_what_brings_the_old_stack_back() -> None:
    assert remedy_for(T4, L4) == "pip install torch==2.8.0 and use a Tesla T4, then release the job"


def test_only_what_both_know_can_have_changed() -> None:
    assert changes({"torch": "2.8.0"}, L4) == ["torch 2.8.0 → 2.9.1"]
