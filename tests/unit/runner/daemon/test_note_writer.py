from __future__ import annotations

import itertools
import threading
import time

from runner.daemon.note_writer import NoteWriter
from runner.errors import StoreUnavailable
from runner.machine.vram import CardUse
from runner.screen.daemon_note import CardNote, note_path, read_note
from runner.store.base import Properties, Quota

CARD = CardUse(index=0, name="Tesla T4", total_mib=15_000, used_mib=100)


class _Store:
    """The two things that the note writer asks a store for."""

    properties = Properties(place="a shelf")

    def __init__(self, answer):
        self._answer = answer

    def quota(self):
        return self._answer()


def _note(folder, answer, wanted):
    writer = NoteWriter(
        folder, _Store(answer), read_cards=lambda: [CARD], clock=lambda: 7.0, note_seconds=0.01, quota_seconds=0.01
    )
    writer.start()
    while (note := read_note(folder)) is None or not wanted(note):
        time.sleep(0.01)
    writer.close()
    return note


def test_cards_and_room_are_noted(tmp_path):
    note = _note(tmp_path, lambda: Quota(free=5, total=9), lambda note: note.free_bytes is not None)

    assert (note.written_at, note.place, note.free_bytes, note.total_bytes) == (7.0, "a shelf", 5, 9)
    assert note.cards == (CardNote(index=0, name="Tesla T4", total_mib=15_000, used_mib=100),)


def test_when_the_room_ends_is_told_from_what_it_lost_meanwhile(tmp_path):
    hours = itertools.count(start=1)
    free = itertools.count(start=900, step=-100)
    writer = NoteWriter(
        tmp_path,
        _Store(lambda: Quota(free=next(free))),
        read_cards=list,
        clock=lambda: 3600.0 * next(hours),
        note_seconds=0.01,
        quota_seconds=0.01,
    )
    writer.start()
    while (note := read_note(tmp_path)) is None or note.full_at is None:
        time.sleep(0.01)
    writer.close()

    assert note.full_at > 3 * 3600.0


def test_a_store_that_is_away_leaves_the_room_unknown(tmp_path):
    asked = threading.Event()

    def away():
        asked.set()
        raise StoreUnavailable("gone")

    note = _note(tmp_path, away, lambda note: asked.is_set())

    assert (note.place, note.free_bytes) == ("a shelf", None)


def test_a_store_that_hangs_does_not_keep_the_cards_waiting(tmp_path):
    free = threading.Event()

    def hang():
        free.wait(60)
        return Quota(free=1)

    note = _note(tmp_path, hang, lambda note: True)

    assert note.cards[0].name == "Tesla T4"
    free.set()


def test_a_home_that_cannot_be_written_ends_nothing(tmp_path):
    (tmp_path / "home").write_text("a file")
    writer = NoteWriter(
        tmp_path / "home", _Store(lambda: Quota(free=1)), read_cards=list, clock=lambda: 7.0, note_seconds=0.01
    )

    writer.start()
    writer.close()

    assert not note_path(tmp_path / "home").exists()
