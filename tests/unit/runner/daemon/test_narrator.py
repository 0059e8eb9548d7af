"""Lines that stay and a picture that is drawn anew, on a real pseudo-terminal, in a cell and in a pipe."""

import io
import os
import pty
import select
import time

import pytest

from runner.daemon.narrator import Manner, Screen, manner_of

SCENE = [("now", ["a: step 1 of 9", "loss 2.000"]), ("store", ["a shelf", "all sent"])]


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        yield stream, master
    os.close(master)


def shown(master, until):
    """What arrived at the terminal, once `until` is in it."""
    body = b""
    while until.encode() not in body:
        assert select.select([master], [], [], 10)[0], f"nothing more came after {body!r}"
        body += os.read(master, 4096)
    return body.decode()


def test_a_stream_is_shown_in_the_manner_that_it_can_be(terminal):
    stream, _ = terminal

    assert manner_of(stream, {"TERM": "xterm"}) is Manner.PICTURE
    assert manner_of(stream, {"TERM": "dumb"}) is Manner.LOG
    assert manner_of(stream, {"TERM": "xterm-color", "JPY_PARENT_PID": "5"}) is Manner.LINE
    assert manner_of(stream, {"TERM": "xterm", "COLAB_RELEASE_TAG": "x"}) is Manner.LINE
    assert manner_of(io.StringIO(), {"TERM": "xterm", "JPY_PARENT_PID": "5"}) is Manner.LOG


def test_a_terminal_keeps_lines_above_and_draws_the_rest_anew(terminal):
    stream, master = terminal
    screen = Screen(stream, Manner.PICTURE)

    screen.show(SCENE)
    screen.say("something happened")
    screen.close()

    picture = "now      a: step 1 of 9 · loss 2.000\r\nstore    a shelf · all sent"
    again = "\r\x1b[1A\x1b[J"
    body = shown(master, f"{picture}{again}something happened\r\n{picture}{again}")
    assert body == f"{picture}{again}something happened\r\n{picture}{again}"


def test_no_line_of_the_picture_is_as_wide_as_the_terminal(terminal):
    stream, master = terminal

    Screen(stream, Manner.PICTURE).show([("now", ["word " * 50]), ("store", ["x" * 200])])

    assert max(map(len, shown(master, "store").split("\r\n"))) < 80


def test_a_cell_has_one_line_that_covers_the_one_before():
    stream = io.StringIO()
    screen = Screen(stream, Manner.LINE)

    screen.show(SCENE)
    screen.show([("now", ["done"])])

    line = "a: step 1 of 9 · loss 2.000 · store a shelf · all sent"
    assert stream.getvalue() == f"{line}\r{' ' * len(line)}\rdone"


def test_a_pipe_gets_lines_alone():
    stream = io.StringIO()
    screen = Screen(stream, Manner.LOG)

    screen.show(SCENE)
    screen.say("one")
    screen.close()

    assert stream.getvalue() == "one\n"


def test_a_terminal_that_is_gone_ends_nothing(terminal):
    stream, _ = terminal
    screen = Screen(stream, Manner.LOG)
    before = screen.said_at
    stream.close()
    time.sleep(0.01)

    screen.say("into the void")

    assert screen.said_at > before
