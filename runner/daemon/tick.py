"""One look at the world: what ended, what lives, what can start."""

from __future__ import annotations

from runner.context import DaemonContext, Now
from runner.daemon.dispatch import dispatch
from runner.daemon.reap import reap, reap_left_behind
from runner.daemon.watch import watch
from runner.queue.attempts import SEEN_SECONDS, see_session


def tick(daemon: DaemonContext, now: Now) -> None:
    daemon.launcher.require_there()
    daemon.sight.look()
    every = min(SEEN_SECONDS, daemon.settings.numbers.lease_seconds / 4)
    daemon.session = see_session(daemon.queue, daemon.session, now.wall, every)
    reap(daemon, now)
    watch(daemon, now)
    if daemon.queue.is_shared:
        daemon.living = daemon.homes.living(daemon.queue, now.monotonic)
        reap_left_behind(daemon, now.wall)
    dispatch(daemon, now)
