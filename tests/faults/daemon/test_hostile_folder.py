"""A folder that holds files named like our modules, or like those that we use: nothing of it is ever imported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.machine import JOBS, Machine

HOSTILE = ("runner", "wake2vec", "datasets", "random", "torch", "tokenizers", "safetensors")
ROOT = Path(__file__).parents[3]
TELLS = """
import json, os, sys
from pathlib import Path
out = Path(sys.argv[1]) / "checkpoint-1"
out.mkdir(parents=True)
(out / "environment.json").write_text(json.dumps(dict(os.environ)))
"""


class FromACopy(Machine):
    """As a wheel does, with code that lies outside of any checkout."""

    def command(self, *arguments: str) -> list[str]:
        start = [sys.executable, "-P", "-c", "from runner.cli import main; main()"]
        return [*start, *super().command(*arguments)[1:]]


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "current"
    folder.mkdir()
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'reached')!r}, 'a').write('{name} '); raise OSError\n")
    monkeypatch.chdir(folder)
    return folder


def tiny_job(folder: Path) -> str:
    text = (
        (JOBS / "tiny_p1.toml")
        .read_text()
        .replace("steps = 60", "steps = 4")
        .replace("samples = 1", "hopes = false")
        .replace('"tiny/', f'"{JOBS}/tiny/')
    )
    (folder / "tiny_p1.toml").write_text(text)
    return str(folder / "tiny_p1.toml")


TOOLS = (["report", "tiny_p1"], ["generate", "tiny_p1", "--tokens", "2"], ["geometry", "tiny_p1"])


@pytest.mark.parametrize("tools", [(), pytest.param(TOOLS, marks=pytest.mark.sweep)], ids=["export", "every tool"])
def test_a_job_trains_is_uploaded_and_shown_from_a_hostile_folder(
    tmp_path: Path, hostile: Path, tools: Iterable[list[str]]
) -> None:
    """All tools are started as `export` is."""
    for package in ("runner", "wake2vec"):
        shutil.copytree(ROOT / package, tmp_path / "site" / package)
    environment = {"PYTHONPATH": str(tmp_path / "site")}
    machine = FromACopy(home=tmp_path / "home", store=tmp_path / "store", environment=environment)
    store = ["--store", f"fs:file://{tmp_path / 'remote'}"]  # uploads to it are processes of their own

    machine.run("enqueue", tiny_job(tmp_path), *store)
    machine.run("start", "--until-empty", *store)
    machine.run("export", "tiny_p1", "--to", str(tmp_path / "out"), *store)
    for words in tools:
        machine.run(*words, *store)

    assert not (hostile / "reached").exists()
    assert (tmp_path / "out" / "config.json").is_file()


def test_a_command_job_runs_as_its_person_wrote_it_without_the_runners_secrets(tmp_path: Path, hostile: Path) -> None:
    (tmp_path / "tells.py").write_text(TELLS)
    (tmp_path / "job.toml").write_text(
        'name = "mine"\nphase = "command"\nsteps = 1\n'
        f'command = ["python", {json.dumps(str(tmp_path / "tells.py"))}, "{{checkpoint_dir}}"]\n'
    )
    secrets = {"WAKE2VEC_DRIVE_TOKEN": "hush-token", "WAKE2VEC_NOTIFY": "http://127.0.0.1:9/hush", "PYTHONPATH": "mine"}
    machine = Machine(home=tmp_path / "home", store=tmp_path / "store", environment=secrets)
    machine.run("enqueue", str(tmp_path / "job.toml"))
    machine.run("start", "--until-empty")

    told = (machine.run_dir("mine").root / "foreign" / "checkpoint-1" / "environment.json").read_text()
    kept = subprocess.run(["grep", "-rl", "hush", str(tmp_path)], capture_output=True, text=True, check=False).stdout
    assert "hush" not in told
    assert json.loads(told)["PYTHONPATH"] == "mine"
    assert kept == ""
    assert not (hostile / "reached").exists()
