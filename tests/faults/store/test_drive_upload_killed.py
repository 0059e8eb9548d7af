"""G1: kill -9 in the middle of an upload costs at most one chunk."""

from __future__ import annotations

from tests.faults.protocols.store import budget, killed_uploads, stuck_transfer


def test_a_killed_upload_sends_only_what_is_missing() -> None:
    figures = killed_uploads(budget(100))

    assert figures["bytes_resent_max"] <= figures["chunk_bytes"], figures
    assert (figures["lost"], figures["duplicate"]) == (0, 0), figures
    assert figures["sessions"] == figures["kills"], figures


def test_an_upload_that_hangs_holds_nobody_up_and_can_be_ended() -> None:
    figures = stuck_transfer()

    assert figures["lost"] == 0
    assert figures["blocked_seconds_max"] < 1.0, figures
