from __future__ import annotations

import pytest

from runner.screen.daemon_note import (
    CardNote,
    DaemonNote,
    Sending,
    UploadNote,
    note_path,
    read_note,
    read_upload,
    write_note,
)


def test_a_note_comes_back_as_it_was_written(tmp_path):
    note = DaemonNote(
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


UPLOAD = UploadNote(job="a", name="checkpoint-2", done_bytes=0, size=100, started_at=1.0)


def test_an_upload_adds_up_over_its_objects_and_leaves_nothing_behind(tmp_path):
    times = iter(range(100))
    sending = Sending(tmp_path, UPLOAD, lambda: float(next(times)))
    seen = []

    for sent in (10, 60, 5, 40):
        sending.report(sent)
        upload = read_upload(tmp_path)
        assert upload is not None
        seen.append(upload.done_bytes)
    sending.end()

    assert seen == [10, 60, 65, 100]
    assert read_upload(tmp_path) is None
    sending.end()


def test_an_upload_writes_at_most_twice_a_second(tmp_path):
    sending = Sending(tmp_path, UPLOAD, lambda: 5.0)
    sending.report(10)

    sending.report(20)

    upload = read_upload(tmp_path)
    assert upload is not None
    assert upload.done_bytes == 10


def test_a_note_of_an_upload_that_cannot_be_written_stops_no_upload(tmp_path):
    (tmp_path / "home").write_text("a file")

    Sending(tmp_path / "home", UPLOAD, lambda: 5.0).report(10)

    assert read_upload(tmp_path / "home") is None
