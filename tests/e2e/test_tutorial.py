"""Every line of the tutorial runs, in its order, in a folder that is empty at first."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.machine import IMPATIENT, quick_machine

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"


def lines() -> list[list[str]]:
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return [shlex.split(line.removeprefix("$ ")) for block in blocks for line in block.splitlines()]


def leave_out_hopes(file: Path) -> None:
    """What a job came to takes most of its time; of the three jobs the last one measures it."""
    text = file.read_text("utf-8")
    assert "[evaluate]\n" in text
    file.write_text(text.replace("[evaluate]\n", "[evaluate]\nhopes = false\n"), "utf-8")


def test_the_tutorial_runs_as_it_stands(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    machine = quick_machine(home=tmp_path / "home", store=tmp_path / "store", folder=folder)
    machine.home.mkdir()
    (machine.home / "settings.toml").write_text(IMPATIENT)
    differs = {"diff": 1}  # as diff(1)

    for program, *words in lines():
        assert program == "wake2vec-runner"
        done = machine.done(*words)
        assert done.returncode == differs.get(words[0], 0), f"{words}: {done.stdout}{done.stderr}"
        if words[0] == "new":
            leave_out_hopes(folder / "tiny_p1.toml")

    assert {"words", "adapted", "both.html"} <= {path.name for path in folder.iterdir()}


def test_the_site_names_every_page_once() -> None:
    pages = {path.name for path in PAGE.parent.glob("*.md")}
    named = re.findall(r": ([\w-]+\.md)$", (PAGE.parents[1] / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)

    assert sorted(named) == sorted(pages)
