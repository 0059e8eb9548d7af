"""G1, G10: a daemon that is signalled leaves, with what is saved durable, whatever it was doing."""

import signal

from tests.faults.apart import run_apart


def test_a_daemon_signalled_while_it_uploads_leaves_everything_safe():
    figures = run_apart(
        "signals", "signals_to_daemons",
        places=["sync.publish"], numbers=[signal.SIGTERM],
    )  # fmt: skip

    assert (figures["unstartable"], figures["wrong"]) == (0, 0), figures
