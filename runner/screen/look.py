"""One look at everything that the screen shows; nothing that the daemon could wait for is touched."""

from __future__ import annotations

from dataclasses import replace

from runner.screen.build import build_snapshot
from runner.screen.daemon_note import DaemonNote
from runner.screen.database import read_database
from runner.screen.home import read_home
from runner.screen.snapshot import Snapshot
from runner.settings import Settings
from runner.trouble import Trouble


def look(settings: Settings, now: float, troubles: tuple[Trouble, ...] | None = None) -> Snapshot:
    """The present picture; `troubles` are what the daemon itself meets now, newer than its note."""
    moment = read_database(settings.database)
    around = read_home(settings, moment.jobs)
    if troubles is not None:
        around = replace(around, note=replace(around.note or DaemonNote(written_at=now), troubles=troubles))
    return build_snapshot(moment, around, now)
