"""track: tell a tracker what a job's ledger says; repeated, it adds what is new."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.errors import RunnerError
from runner.queue import jobs
from runner.queue.database import open_queue
from runner.settings import Settings
from runner.track.replay import folder, replay, told
from runner.track.trackers import TRACKERS
from wake2vec.contract.tables import TrackerName


def run(settings: Settings, names: Sequence[str], to: str, into: Path | None) -> None:
    """Raises UnknownJob, TrackerBusy, TrackerFailed, and RunnerError for an unknown tracker or a missing package."""
    if to not in TRACKERS:
        raise RunnerError(f"{to}: no tracker that is known here; there are {', '.join(TRACKERS)}")
    tracker_name: TrackerName = to  # type: ignore[assignment]  # one of them
    with open_queue(settings.database) as queue:
        for name in names:
            jobs.get_job(queue, name)
        for name in names:
            place = into or folder(settings)
            with told(settings, name, tracker_name, place) as tracker:
                before = tracker.reached()
                after = replay(queue, name, tracker, before)
            print(f"{name}: {to} knows it to step {max(after.train, 0):,} (before: {max(before.train, 0):,})")
            print(f"look at it: {tracker.look_at}")
