from __future__ import annotations

import pytest

from runner.worknote import CardNote, UploadNote, WorkNote, note_path, read_note, write_note


def test_a_note_comes_back_as_it_was_written(tmp_path):
    note = WorkNote(
        written_at=1.5,
        place="Drive",
        free_bytes=7,
        cards=(CardNote(index=0, name="T4", total_mib=2, used_mib=1),),
        uploads=(UploadNote(job="a", name="checkpoint-2", done_bytes=1, size=2, started_at=1.0),),
    )

    write_note(tmp_path, note)

    assert read_note(tmp_path) == note


@pytest.mark.parametrize("body", ["", "[]", "null", "{", '{"cards": 3}', '{"unknown": 1}', '{"cards": [1]}'])
def test_what_is_no_note_is_no_note(tmp_path, body):
    note_path(tmp_path).write_text(body)

    assert read_note(tmp_path) is None


def test_no_note_is_no_note(tmp_path):
    assert read_note(tmp_path) is None
