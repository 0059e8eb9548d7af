"""start: be the daemon of this home until stopped, and say what happens."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runner.commands.results.push import pushed_to
from runner.daemon.logs import append, line_of
from runner.daemon.main import Wanted, run_daemon
from runner.daemon.narrator import Narrator, Screen, manner_of
from runner.daemon.note_writer import NoteWriter
from runner.errors import INTERRUPTED
from runner.machine.home import check_home
from runner.machine.session import mounted_drive
from runner.machine.vram import read_cards
from runner.queue.history import mark_of
from runner.settings import Settings
from runner.store.open import open_store
from runner.sync.job_in_store import SyncContext
from runner.track.pushing import PUSH_VARIABLE, Pushing
from runner.track.replay import Following


def run(settings: Settings, wanted: Wanted) -> None:
    """Exits with the daemon's code."""
    screen = Screen(sys.stdout, manner_of(sys.stdout, os.environ))

    def say(text: str) -> None:
        screen.say(text)
        for line in text.splitlines():
            append(settings.daemon_log, line_of(line, time.time()))

    def attend(context: SyncContext) -> None:
        writer.troubles = lambda: context.troubles_now
        writer.newest_event = lambda: mark_of(context.daemon.queue).event
        writer.away = context.daemon.launcher.away
        narrator.context = context

    check_home(settings.home, allow_network=wanted.allow_network_home)
    say(f"home {settings.home}, store {settings.store_shown}; Ctrl-C saves and stops")
    if warning := mounted_drive(settings.store_url):
        say(f"warning: {warning}")
    store = open_store(settings.store_url, settings.home)
    writer = NoteWriter(settings.home, store, read_cards=read_cards, clock=time.time)
    webhook = ringing(settings, os.environ.get("WAKE2VEC_NOTIFY", ""), say)
    to = os.environ.get(PUSH_VARIABLE, "")
    pushing = Pushing(settings, pushed_to(to) if to else "", say)
    with writer, Narrator(settings, screen, say) as narrator, webhook, Following(settings, say), pushing:
        code = run_daemon(settings, wanted, say, attend)
        if code != INTERRUPTED:
            pushing.conclude()
    sys.exit(code)


@contextmanager
def ringing(settings: Settings, url: str, say: Callable[[str], None]) -> Iterator[None]:
    """Call the webhook, where there is one, while the daemon works."""
    if not url:
        yield
        return
    from runner.screen.look import look
    from runner.screen.webhook import Webhook

    webhook = Webhook(url, lambda now: look(settings, now), say=say)
    webhook.start()
    try:
        yield
    finally:
        webhook.close()
