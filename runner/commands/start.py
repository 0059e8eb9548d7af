"""start: be the daemon of this home until stopped, one line for every event."""

from __future__ import annotations

import sys

from runner.daemon import Wanted, run_daemon
from runner.settings import Settings


def run(settings: Settings, wanted: Wanted) -> None:
    """Exits with the daemon's code."""

    def say(line: str) -> None:
        print(line, flush=True)  # a notebook cell shows it at once

    say(f"home {settings.home}, store {settings.store_url}; Ctrl-C saves and stops")
    sys.exit(run_daemon(settings, wanted, say))
