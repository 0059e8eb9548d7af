"""G1, G10: a daemon that is signalled leaves, with what is saved durable, whatever it was doing."""

import signal
import threading

from runner.daemon import _sync_alone
from runner.sync.keeper import Care
from tests.faults.apart import run_apart
from tests.simulated import Clock, Home


def test_a_daemon_signalled_while_it_uploads_leaves_everything_safe():
    figures = run_apart(
        "protocols_signals", "signals_to_daemons",
        places=["sync.publish"], numbers=[signal.SIGTERM],
    )  # fmt: skip

    assert (figures["unstartable"], figures["wrong"]) == (0, 0), figures


def test_a_round_of_uploads_never_waits_for_the_end_of_the_daemon(tmp_path):
    """The interpreter waits for its threads: one that waited for the lock which the end holds kept a daemon alive."""
    home = Home.new(tmp_path / "home", tmp_path / "store", Clock())
    care = Care(work=home.work)
    care.busy.acquire()

    round_ = threading.Thread(target=_sync_alone, args=(care,), daemon=True)
    round_.start()
    round_.join(timeout=60)

    assert not round_.is_alive()
    home.queue.close()
