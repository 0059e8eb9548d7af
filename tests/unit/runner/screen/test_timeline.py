from __future__ import annotations

import dataclasses

from runner.screen.timeline import Timeline, last_lines, lines_of
from runner.states import Outcome
from tests.unit.runner.moments import attempt, evaluation, metrics


def _attempt(number, first, last=None, **extra):
    ended = {"ended_at": 100.0, "last_step": last, "outcome": Outcome.LOST} if last is not None else {}
    return dataclasses.replace(attempt(number=number), first_step=first, **(ended | extra))


def _life(**extra):
    fields = {
        "job": "a",
        "attempts": [_attempt(1, 0, 3), _attempt(2, 2, 5, cause="killed", remedy="retry it")],
        "metrics": metrics(count=5),
        "evaluations": [evaluation(0, 9.0), evaluation(4, 7.0, checkpoint="checkpoint-4")],
        "printed": [(1, "loading"), (2, "loading again")],
    }
    return Timeline(**(fields | extra))


def test_steps_belong_to_the_attempt_whose_work_was_kept():
    lines = list(lines_of(_life()))

    assert [(line.attempt, line.step) for line in lines if line.kind == "step"] == [
        (1, 1),
        (1, 2),
        (2, 3),
        (2, 4),
        (2, 5),
    ]


def test_an_attempt_is_told_from_its_beginning_to_its_cause_and_remedy():
    kinds = [(line.attempt, line.kind) for line in lines_of(_life()) if line.kind != "step"]
    last = list(lines_of(_life()))[-1]

    assert kinds == [
        (1, "attempt"), (1, "output"), (1, "evaluation"), (1, "end"),
        (2, "attempt"), (2, "output"), (2, "evaluation"), (2, "end"),
    ]  # fmt: skip
    assert last.text == "attempt 2 lost at step 5 after 99 s: killed; retry it"


def test_an_attempt_that_still_runs_has_no_end():
    life = _life(attempts=[_attempt(1, 0)])

    assert [line.kind for line in lines_of(life)][-1] == "step"


def test_told_again_each_line_has_the_same_key_and_no_two_share_one():
    keys = [line.key for line in lines_of(_life())]

    assert keys == [line.key for line in lines_of(_life())]
    assert len(set(keys)) == len(keys)


def test_the_last_lines_of_one_attempt():
    lines = last_lines(lines_of(_life()), 2, 2)

    assert [line.kind for line in lines] == ["step", "end"]
    assert len(last_lines(lines_of(_life()), None, 0)) == len(list(lines_of(_life())))


def test_an_evaluation_names_its_checkpoint():
    texts = [line.text for line in lines_of(_life()) if line.kind == "evaluation"]

    assert texts[-1] == "  evaluation at 4: held-out 7.000 nats, checkpoint-4"
