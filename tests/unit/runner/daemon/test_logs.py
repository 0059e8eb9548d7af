from __future__ import annotations

import json

import pytest

from runner.daemon.logs import MOST_BYTES, append, line_of


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("22:45:56 tiny_p1 #3: started on cpu from step 20", ("tiny_p1", 3, 20, "info")),
        ("22:46:06 tiny_p1: succeeded", ("tiny_p1", None, None, "info")),
        ("trouble: the store is away; trying again", (None, None, None, "error")),
        ("the session's time is over", (None, None, None, "info")),
        ("notifications: no picture: locked", (None, None, None, "info")),
    ],
)
def test_a_line_knows_what_it_is_about(text, about):
    line = line_of(text, 7.0)

    assert (line["job"], line["attempt"], line["step"], line["level"]) == about
    assert (line["at"], line["text"]) == (7.0, text)


def test_lines_are_json_and_a_long_log_is_set_aside(tmp_path):
    place = tmp_path / "home" / "runner.log"

    assert append(place, {"text": "a" * MOST_BYTES})
    assert append(place, {"text": "b"})

    assert json.loads(place.read_text()) == {"text": "b"}
    assert (tmp_path / "home" / "runner.log.1").stat().st_size > MOST_BYTES


def test_a_log_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")

    assert not append(tmp_path / "file" / "runner.log", {"text": "x"})
