from __future__ import annotations

from runner.machine.joblog import MOST_BYTES, open_log, read_log


def _print(path, attempt, *lines):
    with open_log(path, attempt, 0.0) as file:
        file.writelines(f"{line}\n".encode() for line in lines)


def test_each_line_knows_its_attempt(tmp_path):
    path = tmp_path / "trainer.log"
    _print(path, 1, "loading", "")
    _print(path, 2, "loading again")

    assert list(read_log(path)) == [(1, "loading"), (2, "loading again")]


def test_a_long_log_is_set_aside_and_still_read(tmp_path):
    path = tmp_path / "trainer.log"
    _print(path, 1, "x" * MOST_BYTES)
    _print(path, 2, "short")

    assert path.stat().st_size < 100
    assert [(attempt, len(line)) for attempt, line in read_log(path)] == [(1, MOST_BYTES), (2, 5)]


def test_a_progress_bar_is_read_as_what_it_said_last(tmp_path):
    path = tmp_path / "trainer.log"
    _print(path, 1, "10%\r50%\r100%")

    assert list(read_log(path)) == [(1, "100%")]


def test_bytes_that_are_no_text_are_read_all_the_same(tmp_path):
    path = tmp_path / "trainer.log"
    path.write_bytes(b"\xff torn\n")

    assert list(read_log(path)) == [(None, "\ufffd torn")]
    assert list(read_log(tmp_path / "none.log")) == []
