"""Trouble that does not end, and a round that meets the daemon's end."""

import threading

import pytest

from runner.daemon.loops import MOST_TROUBLES_IN_A_ROW, Loops, noting_failures, sync_alone
from runner.errors import StoreBusy
from runner.sync.job_in_store import SyncContext
from tests.simulated import Clock, Home


def failing(error):
    def action():
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (ValueError("a bug"), 5),
        (StoreBusy("away"), MOST_TROUBLES_IN_A_ROW),
        (OSError(28, "full"), 120),
    ],
)
def test_a_bug_ends_the_daemon_after_five_rounds_and_trouble_only_after_long(tmp_path, error, times):
    home = Home.new(tmp_path / "home", tmp_path / "store", Clock())
    loops = Loops()
    run = noting_failures("tick", failing(error), home.daemon, loops)

    for _ in range(times - 1):
        run()
    assert max(loops.bugs.values()) < MOST_TROUBLES_IN_A_ROW
    run()

    assert max(loops.bugs.values()) >= MOST_TROUBLES_IN_A_ROW
    noting_failures("tick", lambda: None, home.daemon, loops)()
    assert loops.bugs["tick"] == 0
    home.queue.close()


def test_a_round_of_uploads_never_waits_for_the_end_of_the_daemon(tmp_path):
    """The interpreter waits for its threads: one that waited for the lock which the end holds kept a daemon alive."""
    home = Home.new(tmp_path / "home", tmp_path / "store", Clock())
    context = SyncContext(daemon=home.daemon)
    context.busy.acquire()

    round_ = threading.Thread(target=sync_alone, args=(context,), daemon=True)
    round_.start()
    round_.join(timeout=60)

    assert not round_.is_alive()
    home.queue.close()
