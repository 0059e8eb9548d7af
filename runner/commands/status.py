"""status: the live screen on a terminal, one picture in a pipe or a notebook, JSON for programs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict

from rich.console import Console, Group
from rich.live import Live

from runner.screen.look import look
from runner.screen.render import render
from runner.screen.snapshot import Snapshot
from runner.settings import Settings


def run(settings: Settings, *, once: bool, as_json: bool, every_seconds: float) -> None:
    """Raises DatabaseCorrupt and HomeUnusable; a home that does not exist yet is an empty queue."""
    if as_json:
        print(json.dumps(asdict(look(settings, time.time())), ensure_ascii=False, indent=1))
        return
    console = Console(highlight=False, emoji=False, markup=False)
    if once or not is_live(console, os.environ):
        console.print(_screen(look(settings, time.time()), console, height=None))
        return
    _live(settings, console, every_seconds)


def is_live(console: Console, environment: Mapping[str, str]) -> bool:
    """Whether the screen can be drawn anew in place. A notebook cell claims to be a terminal and is none."""
    return console.is_terminal and not console.is_dumb_terminal and "JPY_PARENT_PID" not in environment


def _live(settings: Settings, console: Console, every_seconds: float) -> None:
    with suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_screen(look(settings, time.time()), console, height=console.height), refresh=True)
            time.sleep(every_seconds)


def _screen(snapshot: Snapshot, console: Console, height: int | None) -> Group:
    ascii_only = not console.encoding.lower().startswith("utf")
    return render(snapshot, width=console.width, height=height, ascii_only=ascii_only)
