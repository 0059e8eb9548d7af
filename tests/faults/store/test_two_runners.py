"""G4: of the real processes that race for a job, exactly one commits."""

from __future__ import annotations

import pytest

from tests.faults.protocols.store import budget, races


@pytest.mark.parametrize("kind", ["dir", "drive"])
def test_exactly_one_of_two_or_three_runners_commits(kind: str) -> None:
    figures = races(budget(200), kind=kind)

    assert figures["exactly_one"] == figures["races"], figures
    assert figures["winners_told"] == {1: figures["races"]}, figures
