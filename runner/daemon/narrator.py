"""The voice of `start`: lines as things happen, and below them, where they can be drawn anew, what goes on now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from shutil import get_terminal_size
from typing import TextIO

from runner.errors import RunnerError
from runner.screen.layout import Page, cut, flow
from runner.screen.look import look
from runner.screen.narration import Scene, brief, flat, news, scene
from runner.screen.snapshot import Snapshot
from runner.settings import Settings
from runner.sync.job_in_store import SyncContext

LOOK_SECONDS, SILENCE_SECONDS, FULL_SECONDS = 1.0, 9.0, 60.0
NOTEBOOKS = ("JPY_PARENT_PID", "COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE")


class Manner(Enum):
    """How a stream can show what changes."""

    PICTURE = "picture"  # a terminal: a few lines drawn anew
    LINE = "line"  # the output of a notebook cell: one line, by carriage return
    LOG = "log"  # a pipe or a file: lines alone


def manner_of(stream: TextIO, environment: Mapping[str, str]) -> Manner:
    if type(stream).__module__.startswith("ipykernel"):  # called from a cell, in its own process
        return Manner.LINE
    if not stream.isatty() or environment.get("TERM", "dumb") == "dumb":
        return Manner.LOG
    return Manner.LINE if any(name in environment for name in NOTEBOOKS) else Manner.PICTURE


class Screen:
    """A stream with something at its end that is drawn anew. A stream that is gone ends nothing."""

    def __init__(self, stream: TextIO, manner: Manner) -> None:
        self.manner, self.said_at = manner, time.monotonic()
        self._stream, self._drawn, self._lines = stream, "", [""]
        self._lock = threading.RLock()  # a signal may speak in the middle of a line
        self._is_ascii = not str(getattr(stream, "encoding", "utf-8") or "utf-8").lower().startswith("utf")

    def say(self, text: str) -> None:
        """A line that stays."""
        self.said_at = time.monotonic()
        self._write(lambda: f"{self._erase()}{text}\n{self._draw(self._lines)}")

    def show(self, lines: Scene) -> None:
        """What goes on, in place of what was shown before."""
        if self.manner is Manner.LOG:
            return
        page = Page(width=max(20, get_terminal_size().columns - 1), ascii_only=self._is_ascii)
        rows = [cut(row, page).plain for label, parts in lines for row in flow(label, parts, page)]
        self._lines = rows if self.manner is Manner.PICTURE else [page.text(flat(lines)).plain]
        self._write(lambda: self._erase() + self._draw(self._lines))

    def close(self) -> None:
        self._lines = [""]
        self._write(self._erase)

    def _write(self, body: Callable[[], str]) -> None:
        with self._lock, suppress(OSError, ValueError):
            self._stream.write(body())
            self._stream.flush()

    def _erase(self) -> str:
        if self.manner is Manner.PICTURE and self._drawn:
            up = self._drawn.count("\n")
            return "\r" + (f"\x1b[{up}A" if up else "") + "\x1b[J"
        return f"\r{' ' * len(self._drawn)}\r" if self._drawn else ""

    def _draw(self, lines: Sequence[str]) -> str:
        self._drawn = "\n".join(lines)
        return self._drawn


class Narrator:
    """Looks at the picture about once a second, from a thread of its own: nothing that hangs makes it silent."""

    def __init__(self, settings: Settings, screen: Screen, say: Callable[[str], None]) -> None:
        self.context: SyncContext | None = None  # as soon as there is a daemon to look at
        self._settings, self._screen, self._say = settings, screen, say
        self._last: Snapshot | None = None
        self._full_at = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="narrator", daemon=True)

    def __enter__(self) -> Narrator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(5.0)
        self._screen.close()

    def _run(self) -> None:
        pause = LOOK_SECONDS
        while not self._end.wait(pause):
            began = time.monotonic()
            with suppress(RunnerError, OSError):  # the daemon meets it too, and tells it
                self._look()
            pause = max(LOOK_SECONDS, 10 * (time.monotonic() - began))

    def _look(self) -> None:
        if self.context is None:
            return
        # what is in the way at this very moment, too
        picture = look(self._settings, time.time(), self.context.troubles_now)
        doing = _doing(self.context)
        for line in news(self._last, picture):
            self._say(f"{time.strftime('%H:%M:%S', time.localtime(picture.at))} {line}")
        self._last = picture
        self._screen.show(scene(picture, doing))
        silent = time.monotonic() - self._screen.said_at
        if self._screen.manner is Manner.LOG and silent >= SILENCE_SECONDS:
            is_full = time.monotonic() - self._full_at >= FULL_SECONDS
            told = flat(scene(picture, doing)) if is_full else " · ".join(brief(picture, doing))
            self._full_at = time.monotonic() if is_full else self._full_at
            self._screen.say(f"{time.strftime('%H:%M:%S', time.localtime(picture.at))} {told}")


def _doing(context: SyncContext) -> str:
    if context.daemon.is_stopping:
        return "stopping: what is trained is saved and sent"
    return f"reading {context.daemon.store.properties.place}" if context.root is None else ""
