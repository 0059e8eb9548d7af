"""One look at the world: what ended, what lives, what can start."""

from __future__ import annotations

from runner.context import Workplace
from runner.daemon.dispatch import dispatch
from runner.daemon.reap import reap
from runner.daemon.watch import watch
from runner.queue.attempts import see_session


def tick(work: Workplace, now: float, monotonic: float) -> None:
    """`now` in seconds since 1970 is only written down and compared with back-offs; patience runs on `monotonic`."""
    work.sight.look()
    work.session = see_session(work.queue, work.session, now)
    reap(work, now, monotonic)
    watch(work, now, monotonic)
    dispatch(work, now)
