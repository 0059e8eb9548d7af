"""The wheel alone, in an empty folder of a machine that has never seen the project."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from bench.publish.wheel import build_wheel
from tests.standalone import bare_python, install, surroundings


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    python = bare_python(tmp_path_factory.mktemp("machine") / "env")
    install(python, wheel)
    return python


def said(python: Path, folder: Path, *words: str) -> str:
    runner = [str(python.parent / "wake2vec-runner"), "--home", "home", "--store", "dir:store"]
    done = subprocess.run(
        [*runner, *words], cwd=folder, env=surroundings(), capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.sweep  # `make test` has the wheel train inside a notebook, and the plug pulled in forks: test_demo.py
def test_the_plug_is_pulled_on_a_machine_that_has_only_the_wheel(python: Path, tmp_path: Path) -> None:
    told = said(python, tmp_path, "demo")

    assert "their home wiped" in told
    assert told.splitlines()[-1] == "the same bits"


def test_what_new_writes_is_queued_there(python: Path, tmp_path: Path) -> None:
    said(python, tmp_path, "new", "tiny_p2")

    assert "queued tiny_p2" in said(python, tmp_path, "enqueue", "tiny_p1.toml", "tiny_p2.toml")


def test_it_holds_what_it_needs_and_nothing_of_a_person(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    inside = [name.removeprefix("runner/jobs/") for name in names if name.startswith("runner/jobs/")]
    assert {"qwen_p1.toml", "tiny/model/model.safetensors", "texts/README.md"} <= set(inside)
    assert [name for name in inside if name.startswith("texts/")] == ["texts/README.md"]
    assert not [name for name in inside if "demo" in name or name.endswith(".pyc")]
    assert {"runner/py.typed", "wake2vec/py.typed"} <= set(names)
    about = next(name for name in names if name.endswith("METADATA"))
    assert "](docs/" not in zipfile.ZipFile(wheel).read(about).decode()  # no link that leads nowhere
