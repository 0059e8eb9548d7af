"""What the two loops hand each other."""

from __future__ import annotations

from runner.context import Handover, Ready


def test_what_was_asked_for_is_given_and_taken_once() -> None:
    handover = Handover()
    handover.ask(["b", "a"])
    assert list(handover.asked()) == ["b", "a"]

    handover.give("b", Ready(last_attempt=3))

    assert list(handover.asked()) == ["a"]
    assert (handover.asks("a"), handover.asks("b"), handover.holds("b")) == (True, False, True)
    assert handover.take("b") == Ready(last_attempt=3)
    assert handover.take("b") is None


def test_whoever_asks_anew_asks_for_nothing_else_any_more() -> None:
    handover = Handover()
    handover.ask(["a", "b"])
    handover.ask(["c"])

    assert list(handover.asked()) == ["c"]


def test_a_job_that_was_taken_is_not_made_ready_again_by_a_round_that_began_before():
    handover = Handover()
    handover.ask(["a"])
    handover.give("a", Ready(last_attempt=1))
    handover.take("a")

    assert not handover.asks("a")
    handover.give("a", Ready(last_attempt=1))

    assert not handover.holds("a")


def test_what_was_made_ready_and_is_not_asked_for_any_more_is_forgotten():
    handover = Handover()
    handover.ask(["a"])
    handover.give("a", Ready(last_attempt=1))
    handover.ask([])

    assert not handover.holds("a")
    assert handover.take("a") is None
