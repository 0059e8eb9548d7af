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
