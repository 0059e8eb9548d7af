"""start: be the daemon of this home until stopped, and say what happens."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runner.daemon.logfile import append, line_of
from runner.daemon.main import Wanted, run_daemon
from runner.daemon.narrator import Narrator, Screen, manner_of
from runner.daemon.note_writer import Teller
from runner.machine.home import check_home
from runner.machine.session import mounted_drive
from runner.machine.vram import read_cards
from runner.settings import Settings
from runner.store.open import open_store
from runner.sync.job_in_store import Care


def run(settings: Settings, wanted: Wanted) -> None:
    """Exits with the daemon's code."""
    screen = Screen(sys.stdout, manner_of(sys.stdout, os.environ))

    def say(text: str) -> None:
        screen.say(text)
        for line in text.splitlines():
            append(settings.daemon_log, line_of(line, time.time()))

    def attend(care: Care) -> None:
        teller.troubles = lambda: care.troubles_now
        narrator.care = care

    check_home(settings.home, allow_network=wanted.allow_network_home)
    say(f"home {settings.home}, store {settings.store_shown}; Ctrl-C saves and stops")
    if warning := mounted_drive(settings.store_url):
        say(f"warning: {warning}")
    store = open_store(settings.store_url, settings.home)
    teller = Teller(settings.home, store, read_cards=read_cards, clock=time.time)
    bell = ringing(settings, os.environ.get("WAKE2VEC_NOTIFY", ""), say)
    with teller, Narrator(settings, screen, say) as narrator, bell:
        code = run_daemon(settings, wanted, say, attend)
    sys.exit(code)


@contextmanager
def ringing(settings: Settings, url: str, say: Callable[[str], None]) -> Iterator[None]:
    """Call the webhook, where there is one, while the daemon works."""
    if not url:
        yield
        return
    from runner.commands.status import see
    from runner.screen.webhook import Bell

    bell = Bell(url, lambda now: see(settings, now), say=say)
    bell.start()
    try:
        yield
    finally:
        bell.close()
