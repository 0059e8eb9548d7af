"""One look at the world: what ended, what lives, what can start."""

from __future__ import annotations

from runner.context import DaemonContext
from runner.daemon.dispatch import dispatch
from runner.daemon.reap import reap
from runner.daemon.watch import watch
from runner.queue.attempts import see_session


def tick(daemon: DaemonContext, now: float, monotonic: float) -> None:
    """`now` in seconds since 1970 is only written down and compared with back-offs; patience runs on `monotonic`."""
    daemon.sight.look()
    daemon.session = see_session(daemon.queue, daemon.session, now)
    reap(daemon, now, monotonic)
    watch(daemon, now, monotonic)
    dispatch(daemon, now)
