"""G4: in no schedule of kills, freezes, skewed clocks and lost answers does a job's log get two authors."""

from __future__ import annotations

from tests.faults.protocols.store import budget, schedules


def test_no_schedule_breaks_the_log() -> None:
    figures = schedules(budget(6000))

    assert figures["broken"] == []
    assert len(figures["faults_by_kind"]) == 6, figures


def test_the_check_sees_a_store_that_lets_two_create_the_same_record() -> None:
    figures = schedules(40, exclusive_create=False)

    assert len(figures["broken"]) > 0
