from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from rich.console import Console

from runner.commands.status import is_live, run
from runner.queue import jobs
from runner.queue.database import open_queue
from runner.settings import read_settings
from tests.unit.runner.conftest import CORPUS, job_spec

PROGRAM = str(Path(sys.executable).with_name("wake2vec-runner"))


@pytest.fixture
def settings(tmp_path):
    settings = read_settings(tmp_path / "home", None, {})
    queue = open_queue(settings.database)
    jobs.add_job(queue, job_spec("a"), [CORPUS], "a", 1.0)
    queue.close()
    return settings


def test_in_a_pipe_it_is_one_picture_without_colour(settings):
    done = subprocess.run([PROGRAM, "--home", str(settings.home), "status"], capture_output=True, text=True, check=True)

    assert "no runner at work" in done.stdout
    assert "a  queued" in done.stdout
    assert "\x1b" not in done.stdout


def test_json_has_a_format_and_every_job(settings, capsys):
    run(settings, once=False, as_json=True, every_seconds=1.0)

    table = json.loads(capsys.readouterr().out)
    assert table["format"] == 1
    assert [job["name"] for job in table["jobs"]] == ["a"]
    assert table["needs"] == [{"job": None, "cause": "no runner is at work", "command": "wake2vec-runner start"}]


def test_a_home_that_does_not_exist_is_an_empty_queue_and_stays_away(tmp_path, capsys):
    run(read_settings(tmp_path / "none", None, {}), once=True, as_json=False, every_seconds=1.0)

    assert "nothing is queued" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_a_notebook_cell_that_claims_to_be_a_terminal_gets_one_picture():
    console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm"})

    assert is_live(console, {})
    assert not is_live(console, {"JPY_PARENT_PID": "7"})
    assert not is_live(Console(file=io.StringIO()), {})


def test_a_locale_without_our_characters_gets_plain_signs(settings):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}

    done = subprocess.run(
        [PROGRAM, "--home", str(settings.home), "status"], capture_output=True, env=environment, check=True
    )

    assert done.stdout.decode("ascii")
    assert b"?" not in done.stdout.replace(b"queued                 ?", b"")


# a test run in the background has SIGINT ignored, and what it starts would too
HEARS_CTRL_C = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
)


def on_a_terminal(settings, **environment):
    """`status` on a pseudo-terminal of 80 x 24; the program, and the end that its screen is read from."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    kept = {key: value for key, value in os.environ.items() if key not in ("JPY_PARENT_PID", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-c", HEARS_CTRL_C, PROGRAM, "--home", str(settings.home), "status", "--every", "0.2"],
        stdin=child, stdout=child, stderr=child, env={**kept, "TERM": "xterm", **environment}, start_new_session=True,
    )  # fmt: skip
    os.close(child)
    return process, parent


def rest_of(terminal):
    seen = b""
    with contextlib.suppress(OSError):  # EIO: nobody holds the other end any more
        while part := os.read(terminal, 4096):
            seen += part
    os.close(terminal)
    return seen


def test_on_a_terminal_it_is_drawn_until_ctrl_c_and_ends_well(settings):
    process, terminal = on_a_terminal(settings)
    seen = b""
    while b"queued" not in seen:
        seen += os.read(terminal, 4096)

    process.send_signal(signal.SIGINT)
    seen += rest_of(terminal)  # unread, it could not finish writing

    assert process.wait(300) == 0
    assert b"\x1b[?1049h" in seen  # a screen of its own,
    assert seen.rindex(b"\x1b[?1049l") > seen.rindex(b"\x1b[?1049h")  # which is left again


def test_in_a_notebook_cell_it_is_one_picture_that_ends(settings):
    process, terminal = on_a_terminal(settings, JPY_PARENT_PID="7")  # a cell's shell has a terminal too

    seen = rest_of(terminal)

    assert process.wait(300) == 0
    assert seen.count(b"wake2vec-runner") == 2  # the heading, and the command that mends what is missing
    assert set(re.findall(rb"\x1b\[[^A-Za-z]*([A-Za-z])", seen)) <= {b"m"}  # colours, and nothing that moves the cursor
    lines = re.sub(rb"\x1b\[[0-9;]*m", b"", seen).decode().replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 80


def test_it_loads_neither_torch_nor_sqlalchemy_nor_the_daemon(settings):
    script = (
        "import sys\nfrom runner.cli import main\n"
        f"try:\n    main(['--home', {str(settings.home)!r}, 'status'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'sqlalchemy', 'apscheduler', 'pydrive2', 'matplotlib'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "HEAVY []"
