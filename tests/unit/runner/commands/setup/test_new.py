from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib

import pytest

from runner.commands.setup import new
from runner.errors import RunnerError
from runner.jobfile.bundled import JOBS, names
from runner.jobfile.read import read_job, resolve_inputs
from wake2vec.contract.errors import SpecError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(*wanted, as_list=False, as_json=False):
    new.run(list(wanted), as_list=as_list, as_json=as_json)


def _faults(path, folder):
    try:
        resolve_inputs(read_job(path), folder, str(path))
    except SpecError as error:
        return [fault.problem for fault in error.faults]
    return []


@pytest.mark.parametrize("name", names())
def test_what_is_written_can_be_queued_from_there_but_for_the_texts_of_a_person(here, name, capsys):
    _run(name)

    written = capsys.readouterr().out
    for path in here.glob("*.toml"):
        assert path.read_bytes() == (JOBS / path.name).read_bytes()
        assert path.name in written.splitlines()[-1]
        faults = _faults(path, here)
        assert all("/texts/" in fault and "README.md says" in fault for fault in faults)
    assert (here / "job.schema.json").is_file()


def test_a_p2_brings_the_p1_that_it_builds_on(here, capsys):
    _run("qwen_p2")

    assert {path.name for path in here.glob("*.toml")} == {"qwen_p1.toml", "qwen_p2.toml"}
    assert capsys.readouterr().out.splitlines()[-1] == "next: wake2vec-runner enqueue qwen_p1.toml qwen_p2.toml"


def test_of_the_texts_only_the_note_travels(here, monkeypatch):
    own = JOBS / "texts" / "of-a-test.txt"
    own.write_text("mine")
    try:
        _run("qwen_p1")
    finally:
        own.unlink()

    assert [path.name for path in (here / "texts").iterdir()] == ["README.md"]


def test_a_file_that_was_edited_is_kept(here, capsys):
    _run("tiny_p1")
    (here / "tiny_p1.toml").write_text("# mine")
    (here / "tiny" / "lexicon.txt").write_text("mine")
    capsys.readouterr()

    _run("tiny_p1.toml")

    assert (here / "tiny_p1.toml").read_text() == "# mine"
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["tiny_p1.toml: kept as you have it", "tiny/lexicon.txt: kept as you have it"]


def test_an_unknown_name_says_what_was_meant_and_writes_nothing(here):
    with pytest.raises(RunnerError, match=r"did you mean qwen_p1\?"):
        _run("tiny_p1", "quen_p1")

    assert list(here.iterdir()) == []


def test_the_list_says_size_and_card_of_every_job(here, capsys):
    _run(as_json=True)

    table = {job["name"]: job for job in json.loads(capsys.readouterr().out)["jobs"]}
    assert set(table) == set(names())
    assert 14.7e9 < table["qwen_p1"]["parameters"] < 14.8e9
    assert (table["qwen_p1"]["card"], table["tiny_p1"]["card"]) == ("t4", "none")
    assert table["distilgpt2_p1"]["card"] == "none"
    assert all(job["about"] for job in table.values())
    _run(as_list=True)
    assert re.search(r"^qwen_p1 +14\.8 B +t4 +Qwen2\.5-14B, P1", capsys.readouterr().out, re.MULTILINE)


def test_python_m_runner_is_the_command_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "runner", "new", "tiny_p1", "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert tomllib.loads((tmp_path / "tiny_p1.toml").read_text())["phase"] == "p1"
    assert {"file": "tiny_p1.toml", "state": "written"} in json.loads(done.stdout)["files"]
