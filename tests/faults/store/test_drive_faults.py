"""G1: a Drive that fails at any call loses nothing, stores nothing twice and commits nothing twice."""

from __future__ import annotations

from tests.drive_server.faults import CHANCES
from tests.faults.protocols.store import budget, faulty_calls


def test_nothing_is_lost_or_doubled_by_calls_that_fail() -> None:
    figures = faulty_calls(budget(10_000))

    assert (figures["lost"], figures["duplicate"], figures["double_commits"]) == (0, 0, 0), figures
    assert figures["commits"] > 0
    assert len(figures["faults_by_kind"]) == len({fault.kind for fault in CHANCES}), figures
