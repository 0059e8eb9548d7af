"""Differences and means that the devlog and the report show, against sums done by hand."""

from __future__ import annotations

import math

import pytest

from wake2vec.contract.ledger import EvaluationRow, EventRow, Ledger, StepRow
from wake2vec.show.facts import RunFacts, SessionFact, complete, session_of
from wake2vec.show.series import mean_loss, measure, perplexity, running_mean, thin


def steps(*losses: float, tokens: int = 10) -> tuple[StepRow, ...]:
    return tuple(StepRow(step=n, loss=loss, tokens=tokens, seconds=2.0) for n, loss in enumerate(losses, start=1))


def evaluation(step: int, loss: float) -> EvaluationRow:
    return EvaluationRow(step=step, loss=loss, tokens=5)


def test_the_train_loss_of_a_line_is_the_token_mean_since_the_line_before() -> None:
    rows = (StepRow(step=1, loss=2.0, tokens=30), StepRow(step=2, loss=4.0, tokens=10), *steps(9.0, 9.0, 6.0)[2:])

    lines = measure(Ledger(steps=rows, evaluations=(evaluation(0, 8.0), evaluation(2, 5.0), evaluation(3, 5.5))))

    assert [line.train for line in lines] == [None, 2.5, 6.0]
    assert [line.change for line in lines] == [None, -3.0, 0.5]
    assert [line.gap for line in lines] == [None, 2.5, -0.5]
    assert [line.to_best for line in lines] == [0.0, 0.0, 0.5]
    assert [line.is_best for line in lines] == [True, True, False]


def test_a_loss_that_is_not_finite_is_no_best_and_spoils_no_mean() -> None:
    lines = measure(Ledger(steps=steps(1.0, math.nan, 3.0), evaluations=(evaluation(0, math.nan), evaluation(3, 4.0))))

    assert [line.is_best for line in lines] == [False, True]
    assert lines[1].train == 2.0
    assert mean_loss(steps(math.nan)) is None


def test_a_step_belongs_to_the_session_that_completed_it() -> None:
    sessions = (SessionFact(first_step=0), SessionFact(first_step=80), SessionFact(first_step=80))

    assert [session_of(step, sessions) for step in (0, 1, 80, 81)] == [1, 1, 1, 3]


def test_sessions_follow_from_resume_events_when_nobody_recorded_them() -> None:
    ledger = Ledger(
        steps=steps(*[1.0] * 50), events=(EventRow(step=20, event="resume"), EventRow(step=20, event="resume"))
    )

    facts = complete(RunFacts(model="m", train_blocks=1000), ledger, batch=16)

    assert [session.first_step for session in facts.sessions] == [0, 20]
    assert facts.coverage == 0.8


@pytest.mark.parametrize(
    ("model", "name"),
    [("/home/me/models/SmolLM2", "SmolLM2"), ("Qwen/Qwen2.5-14B", "Qwen/Qwen2.5-14B"), ("tiny", "tiny")],
)
def test_a_folder_is_named_without_the_machine_it_lay_on(model: str, name: str) -> None:
    assert RunFacts(model=model).model_name == name


def test_the_running_mean_starts_at_the_first_loss() -> None:
    points = running_mean([(1, 4.0), (2, math.nan), (3, 2.0)], weight=0.5)

    assert points == [(1, 4.0), (3, pytest.approx(8 / 3))]


def test_thinning_keeps_the_spike() -> None:
    points = [(step, 1.0) for step in range(10_000)]
    points[5_003] = (5_003, 99.0)

    thinned = thin(points, 500)

    assert (5_003, 99.0) in thinned
    assert len(thinned) <= 510
    assert thinned == sorted(thinned)


def test_perplexity_beyond_a_double_is_infinite() -> None:
    assert perplexity(1000.0) == math.inf
    assert perplexity(math.log(7)) == pytest.approx(7)
