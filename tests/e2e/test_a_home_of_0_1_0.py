"""A home and a store that version 0.1.0 wrote are taken over: looked at, used, and trained on to the same result.

The fixture holds tiny_p1, done, and tiny_p2, stopped at step 60 of 300, both of a model with an id on the hub, and what
0.1.0 itself came to in an uncut run.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.machine import JOBS, Machine, quick_machine

FIXTURE = Path(__file__).parent.parent / "fixtures" / "home_0_1_0.tar.xz"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def machine(old: Path, home: str) -> Machine:
    hub = old / "hf" / "hub" / "models--wake2vec--tiny"
    if not hub.exists():
        shutil.copytree(JOBS / "tiny" / "model", hub / "snapshots" / COMMIT)
        (hub / "refs").mkdir()
        (hub / "refs" / "main").write_text(COMMIT)
    return quick_machine(home=old / home, store=old / "store", environment={"HF_HOME": str(old / "hf")})


def near(found: Path, expected: Path) -> bool:
    """Equal to rounding: the fixture was made on another processor than the one that runs this, perhaps."""
    ours, theirs = load_file(found), load_file(expected)
    return ours.keys() == theirs.keys() and all(np.allclose(ours[k], theirs[k], atol=1e-5) for k in ours)


@pytest.mark.parametrize("home", ["home", "a new home"])
def test_a_job_of_the_old_version_goes_on_to_the_same_result(old: Path, home: str) -> None:
    here = machine(old, home)
    here.run("start", "--until-empty")
    assert near(here.home / "runs/tiny_p2/final/adapter_model.safetensors", old / "uncut/adapter_model.safetensors")
    shown = here.run("status", "--once")
    assert "300/300" in shown
    assert "60/60" in shown


def test_a_home_of_the_old_version_is_shown_and_its_results_are_exported(old: Path) -> None:
    here = machine(old, "home")
    shown = here.run("status", "--once")
    assert "60 of 300" in shown
    here.run("export", "tiny_p1", "--to", str(old / "exported"))
    assert any((old / "exported").iterdir())
    assert near(here.home / "runs/tiny_p1/final/embed_tokens.safetensors", old / "uncut/embed_tokens.safetensors")
