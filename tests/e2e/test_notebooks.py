"""The notebooks as a user runs them: every code cell in order, with a tiny job and a folder as the store."""

from __future__ import annotations

import builtins
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tests.machine import IMPATIENT, job_file

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
JOB = "tiny_notebook"


def cells_of(path: Path, kind: str = "code") -> list[str]:
    return [
        "".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == kind
    ]


class Session:
    """What a notebook's machine offers: its modules, a shell for the lines that begin with "!", and a screen."""

    def __init__(self, folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        self.shown: list[str] = []
        self.names: dict[str, Any] = {"display": self.shown.append}
        tools = folder / "bin"
        tools.mkdir(parents=True)
        for name, script in (
            ("git", f'mkdir -p "$4/jobs" && cp "{job_of(folder)}" "$4/jobs" && echo git "$@"'),
            ("pip", 'echo pip "$@"'),
        ):
            (tools / name).write_text(f"#!/bin/sh\n{script}\n")
            (tools / name).chmod(0o755)
        (folder / "home").mkdir()
        (folder / "home" / "settings.toml").write_text(IMPATIENT)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("WAKE2VEC_HOME", str(folder / "home"))
        monkeypatch.setenv("JPY_PARENT_PID", "1")
        for name in ("WAKE2VEC_STORE", "WAKE2VEC_DRIVE_TOKEN"):
            monkeypatch.setenv(name, "")  # what a cell sets is taken back afterwards
        for name, content in self.modules().items():
            module = types.ModuleType(name)
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)
        self.changes = {'"drive:wake2vec"': repr(f"dir:{store}"), '["qwen_p1", "qwen_p2"]': repr([JOB])}

    def modules(self) -> dict[str, dict[str, Any]]:
        secret = types.SimpleNamespace(
            get=lambda name: f"the secret {name}", get_secret=lambda name: f"the secret {name}"
        )
        display = {"HTML": str, "display": self.shown.append}
        return {
            "google": {}, "google.colab": {"userdata": secret}, "kaggle_secrets": {"UserSecretsClient": lambda: secret},
            "IPython": {}, "IPython.display": display,
        }  # fmt: skip

    def run(self, cell: str) -> None:
        for here, there in self.changes.items():
            cell = cell.replace(here, there)
        shell = re.sub(r"^!(.*)$", lambda line: f"_shell({line[1]!r})", cell, flags=re.MULTILINE)
        exec(
            compile(shell, "cell", "exec"), self.names | {"_shell": self.shell} | {"__builtins__": builtins}, self.names
        )

    def shell(self, line: str) -> None:
        command = re.sub(r"\{(.+?)\}", lambda name: str(eval(name[1], self.names)), line)
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=300, check=False)
        self.said.append(done.stdout + done.stderr)
        assert done.returncode == 0, f"{command}: {self.said[-1]}"


def job_of(folder: Path) -> Path:
    return job_file(
        folder, JOB, of="tiny_p1", train__steps=4, checkpoint__every_steps=2, evaluate__every_steps=2,
        evaluate__max_windows=4,
    )  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs_in_order_and_again_in_the_next_session(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2) if path.stem == "colab" else (1,):
        session = Session(tmp_path / str(number), tmp_path / "store", monkeypatch)
        for cell in cells_of(path):
            if number == 1 or "enqueue" not in cell:  # its text says: in the first session only
                session.run(cell)

        told = "\n".join(session.said)
        assert "git clone -q REPOSITORY_URL wake2vec-runner" in told
        assert "pip install -q ./wake2vec-runner" in told
        assert os.environ["WAKE2VEC_DRIVE_TOKEN"] == "the secret WAKE2VEC_DRIVE_TOKEN"
        here = (
            f"in {tmp_path / '1' / 'home' / 'runs' / JOB} and " if number == 1 else ""
        )  # final/ stays where it was made
        assert f"{JOB}: succeeded; results {here}in the store" in told
        assert re.search(rf"{JOB} +succeeded +4/4", told)
        assert "\x1b" not in told
        assert [page.count("<iframe srcdoc=") for page in session.shown] == [1]
        assert JOB in session.shown[0]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_a_clean_notebook_of_format_4_5(path: Path) -> None:
    table = json.loads(path.read_text("utf-8"))

    assert (table["nbformat"], table["nbformat_minor"]) == (4, 5)
    assert set(table) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    ids = [cell["id"] for cell in table["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in table["cells"]:
        assert re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", cell["id"])
        assert all(line.endswith("\n") for line in cell["source"][:-1])
        if cell["cell_type"] == "code":
            assert (cell["execution_count"], cell["outputs"]) == (None, [])
            assert set(cell) == {"cell_type", "execution_count", "id", "metadata", "outputs", "source"}
        else:
            assert set(cell) == {"cell_type", "id", "metadata", "source"}
    assert len(cells_of(path)) == 5


def test_both_notebooks_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["colab", "kaggle"]
