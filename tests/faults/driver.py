"""A daemon without its command line, on a host or disk of its own where the environment asks: `HOME STORE [-e]`."""

from __future__ import annotations

import faulthandler
import os
import sys
from pathlib import Path


def import_runner() -> None:
    """What a daemon, a command and an upload import; what those start is a fork too."""
    from runner import children
    from tests import zygote

    children.python = zygote.python

    import runner.cli
    import runner.commands.enqueue
    import runner.commands.results.process
    import runner.commands.start
    import runner.commands.status
    import runner.store.drive.store
    import runner.store.places.fsspec  # noqa: F401


def drive(home: str, url: str, *, until_empty: bool) -> int:
    from runner.daemon.main import Wanted, run_daemon
    from runner.errors import RunnerError
    from runner.settings import read_settings

    faulthandler.enable()
    if host := os.environ.get("AS_HOST"):  # another one than this
        import platform

        platform.node = lambda: host
    if ahead := os.environ.get("CLOCK_AHEAD"):  # in seconds
        import time

        true = time.time
        time.time = lambda: true() + float(ahead)
    if shadow := os.environ.get("FORGETFUL_DISK"):
        from tests.faults import power

        power.install(Path(url.removeprefix("dir:")), Path(shadow))
    try:
        return run_daemon(read_settings(Path(home), url), Wanted(until_empty=until_empty))
    except RunnerError as error:
        print("error:", error)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(drive(*sys.argv[1:3], until_empty="-e" in sys.argv))
