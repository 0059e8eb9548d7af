"""Processes that this program starts find its own code and inherit none of its secrets."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runner.children import SECRETS, importing_safely, python, without_secrets
from runner.machine.launcher import trainer_environment

HOSTILE = ("runner", "wake2vec", "datasets", "random", "torch", "json", "numpy")


@pytest.mark.parametrize("path", ["", ":/x", "/x:", ".", "src:/x", "./:/x"])
def test_no_module_comes_from_the_current_folder_whatever_python_path_says(tmp_path: Path, path: str) -> None:
    for name in HOSTILE:
        (tmp_path / f"{name}.py").write_text("open('reached', 'w'); raise SystemExit(77)\n")

    environment = importing_safely({**os.environ, "PYTHONPATH": path})
    done = subprocess.run(
        python("runner.store.transfer"), cwd=tmp_path, env=environment, capture_output=True, check=False
    )

    assert b"IndexError" in done.stderr  # it came as far as asking for its order
    assert not (tmp_path / "reached").exists()


def test_what_a_person_puts_on_the_path_by_its_full_name_stays() -> None:
    safe = importing_safely({"PYTHONPATH": ":/a:b:/c", "X": "1"})

    assert safe == {"PYTHONPATH": "/a:/c", "X": "1", "WAKE2VEC_PYTHONPATH": ":/a:b:/c"}  # whole for a person's command
    assert importing_safely({"PYTHONPATH": "/a:/c"}) == {"PYTHONPATH": "/a:/c"}
    assert importing_safely({"X": "1"}) == {"X": "1"}


def test_a_trainer_inherits_neither_token_nor_webhook_nor_store() -> None:
    base = {**dict.fromkeys(SECRETS, "hush"), "HF_TOKEN": "its own", "HOME": "/h"}

    assert without_secrets(base) == {"HF_TOKEN": "its own", "HOME": "/h"}
    assert "hush" not in trainer_environment(base, [0], cards=2).values()
