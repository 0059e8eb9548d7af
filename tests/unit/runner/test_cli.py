from __future__ import annotations

import errno
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

from runner import errors as runner_errors
from runner.cli import EXIT_CODES, globals_first, guarded, main
from runner.daemon.logs import write_bug
from tests.unit.runner.folders import write_jobs
from wake2vec.contract import errors as wake2vec_errors


def _main(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return int(caught.value.code or 0)


def test_help_lists_every_command_and_every_exit_code(capsys):
    assert _main("--help") == 0

    said = capsys.readouterr().out
    assert "enqueue" in said
    codes = {
        one.exit_code
        for module in (runner_errors, wake2vec_errors)
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, Exception)
    }
    assert {code for code in codes if f" {code}  " not in EXIT_CODES} == set()
    assert "no usable GPU" in said


def test_the_version_is_that_of_the_package(capsys):
    assert _main("--version") == 0
    assert capsys.readouterr().out.strip() == version("wake2vec-runner")


@pytest.mark.parametrize("words", [["frob"], ["enqueue"], ["hold"], ["enqueue", "--frob"]])
def test_wrong_usage_exits_with_2(words):
    assert _main(*words) == 2


def test_a_faulty_job_file_exits_with_1_and_says_every_fault_on_stderr(tmp_path, capsys):
    path = write_jobs(tmp_path) / "a_p1.toml"
    path.write_text(path.read_text().replace("steps = 60", "steps = 0\nbatch = 0"))

    assert _main("--home", str(tmp_path / "home"), "enqueue", str(path)) == 1

    told = capsys.readouterr()
    assert told.out == ""
    assert [line.split(": ")[2] for line in told.err.splitlines()] == ["train.steps", "train.batch"]
    assert all(line.startswith(f"error: {path}: train.") for line in told.err.splitlines())


def test_a_home_that_cannot_be_made_exits_with_18(tmp_path, capsys):
    (tmp_path / "file").write_text("")

    assert _main("--home", str(tmp_path / "file" / "home"), "hold", "a") == 18
    assert capsys.readouterr().err.startswith("error: ")


def test_a_home_below_a_file_exits_with_18(tmp_path, capsys):
    (tmp_path / "file").write_text("")

    assert _main("status", "--once", "--home", str(tmp_path / "file")) == 18
    assert "is a file, not a folder; choose another --home" in capsys.readouterr().err


def test_home_and_store_may_stand_anywhere(tmp_path):
    assert globals_first(["hold", "a", "--home", "h", "--store=dir:s"]) == ["--home", "h", "--store=dir:s", "hold", "a"]
    assert globals_first(["hold", "--", "--home", "x"]) == ["hold", "--", "--home", "x"]
    assert globals_first(["hold", "--home"]) == ["--home", "hold"]


def test_a_bug_exits_with_3_two_lines_and_the_whole_story_in_the_log(tmp_path, capsys):
    def command() -> None:
        raise ZeroDivisionError("division by zero")

    with pytest.raises(SystemExit) as caught:
        guarded(command, ["--home", str(tmp_path), "hold", "x"])

    assert caught.value.code == 3
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert str(tmp_path / "runner.log") in told[1]
    line = json.loads((tmp_path / "runner.log").read_text())
    assert "ZeroDivisionError" in line["traceback"]
    assert line["versions"]["typer"]


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 18), (errno.EROFS, 18), (errno.EBADF, 3)])
def test_a_full_or_read_only_disk_is_no_bug(tmp_path, number, code):
    def command() -> None:
        raise OSError(number, "the system's words", "/some/file")

    with pytest.raises(SystemExit) as caught:
        guarded(command, ["--home", str(tmp_path)])

    assert caught.value.code == code


def test_a_current_folder_that_is_gone_is_no_bug(tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    with pytest.raises(SystemExit) as ended:
        guarded(lambda: Path("words.txt").absolute(), ["--home", str(tmp_path)])

    assert ended.value.code == 1
    assert (
        capsys.readouterr().err
        == "error: the current folder is gone, so nothing can be found from it; cd into another one\n"
    )


def test_a_bug_is_written_elsewhere_when_the_home_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "home").write_text("")

    place = write_bug(ZeroDivisionError(), ["--home", str(tmp_path / "home"), "hold", "x"])

    assert place == tmp_path / "wake2vec-runner-bug.log"
    assert json.loads(place.read_text())["command"][-2:] == ["hold", "x"]


@pytest.mark.parametrize("words", [["--help"], ["schema"], ["enqueue", "a_p1.toml"], ["hold", "a_p1"]])
def test_no_command_imports_torch_or_its_friends(tmp_path, words):
    write_jobs(tmp_path)
    script = (
        "import sys\nfrom runner.cli import main\n"
        f"try:\n    main({['--home', 'home', *words]!r})\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'peft', 'bitsandbytes', 'datasets', 'matplotlib', 'pydrive2'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)

    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_a_terminal_that_cannot_show_our_characters_does_not_end_the_program(tmp_path):
    write_jobs(tmp_path)
    (tmp_path / "a_p1.toml").rename(tmp_path / "b.toml")
    text = (tmp_path / "b.toml").read_text().replace("lr = 1e-3", 'lr = "é"')
    (tmp_path / "b.toml").write_text(text, "utf-8")
    command = [str(Path(sys.executable).with_name("wake2vec-runner")), "--home", "home", "enqueue", "b.toml"]

    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"}, check=False)

    assert done.returncode == 1
    assert b'got the text "?"' in done.stderr
