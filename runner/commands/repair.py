"""repair: bring back to the store what it has lost and this home still holds."""

from __future__ import annotations

from runner.context import read_clocks
from runner.daemon.main import context_of
from runner.errors import DaemonRunning
from runner.machine.home import check_home, only_daemon
from runner.queue.database import open_queue
from runner.settings import Settings
from runner.sync.mend import agree, repair
from runner.sync.trust import unconfirmed


def run(settings: Settings, *, yes: bool) -> int:
    """Say what would be done, and do it when the person says yes; returns the exit code.

    A daemon that lives here does it itself, at its next look. Raises StoreLost, StoreUnavailable.
    """
    check_home(settings.home, allow_network=False)
    try:
        with only_daemon(settings.home):
            return _repair(settings, yes=yes)
    except DaemonRunning:
        if not yes:
            raise
        agree(settings.home)
        print("the runner that works here puts it back; `wake2vec-runner status` shows when that is done")
        return 0


def _repair(settings: Settings, *, yes: bool) -> int:
    with open_queue(settings.database) as queue:
        context = context_of(settings, queue)
        count = repair(context, read_clocks(), print, agreed=yes)
        if not yes or (not count and context.root is None):
            print("nothing was changed; `repair --yes` does it" if count else "nothing is missing")
            return 0
        doubts = unconfirmed(context, read_clocks())
        for job, doubt in doubts.items():
            print(f"{job}: {doubt}")
        print("the store holds it again, read back and verified" if not doubts else "not all of it is there")
        return 1 if doubts else 0
