"""G3, G4: queue, lease and commit under any order of events, by a state machine."""

from tests.faults.protocols.queue import state_machine
from tests.faults.protocols.store import budget


def test_any_order_of_events_leaves_sound_logs_and_a_job_that_reaches_its_end():
    figures = state_machine(budget(10_000, 10) // 20, steps=25)

    assert figures["wrong"] == 0, figures["details"]
