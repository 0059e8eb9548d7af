"""Keep the daemon's note for the screen fresh: cards and room in the store, from a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from runner.errors import RunnerError
from runner.machine.vram import CardUse
from runner.screen.daemon_note import CardNote, DaemonNote, forget_upload, write_note
from runner.store.base import Quota, Store
from runner.store.space import full_at
from runner.trouble import Trouble

NOTE_SECONDS = 3.0
QUOTA_SECONDS = 120.0
RATE_SAMPLES = 180  # six hours of asking


class NoteWriter:
    """Writes `work.json`; a store that is slow or away only makes its part of the note old."""

    def __init__(
        self,
        home: Path,
        store: Store,
        *,
        read_cards: Callable[[], Sequence[CardUse]],
        clock: Callable[[], float],
        note_seconds: float = NOTE_SECONDS,
        quota_seconds: float = QUOTA_SECONDS,
    ) -> None:
        self._home, self._store, self._read_cards, self._clock = home, store, read_cards, clock
        self.troubles: Callable[[], tuple[Trouble, ...]] = tuple
        self.newest_event: Callable[[], int] = int
        self.away: Callable[[], tuple[str, ...]] = tuple
        self._quota = Quota(free=None)
        self._free: deque[tuple[float, int]] = deque(maxlen=RATE_SAMPLES)
        self._full_at: float | None = None
        self._end = threading.Event()
        # Two threads: the cards must not wait for the store.
        self._threads = [
            threading.Thread(target=self._repeat, args=(action, seconds), name="note writer", daemon=True)
            for action, seconds in ((self._ask, quota_seconds), (self._write, note_seconds))
        ]

    def start(self) -> None:
        forget_upload(self._home)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Does not wait for a store that hangs."""
        self._end.set()

    def __enter__(self) -> NoteWriter:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _repeat(self, action: Callable[[], None], seconds: float) -> None:
        while not self._end.is_set():
            action()
            self._end.wait(seconds)

    def _ask(self) -> None:
        try:
            self._quota = self._store.quota()
        except (RunnerError, OSError):
            return  # the sync loop meets the same trouble and tells it
        if self._quota.free is not None:
            self._free.append((self._clock(), self._quota.free))
            self._full_at = full_at(self._free)

    def _write(self) -> None:
        cards = tuple(
            CardNote(index=card.index, name=card.name, total_mib=card.total_mib, used_mib=card.used_mib)
            for card in self._read_cards()
        )
        try:
            newest_event = self.newest_event()
        except RunnerError:
            return  # so is a database that cannot be read
        note = DaemonNote(
            written_at=self._clock(),
            place=self._store.properties.place,
            free_bytes=self._quota.free,
            total_bytes=self._quota.total,
            full_at=self._full_at,
            cards=cards,
            troubles=self.troubles(),
            newest_event=newest_event,
            away=self.away(),
        )
        try:
            write_note(self._home, note)
        except OSError:
            return  # a full disk is the daemon's to tell
