"""A home and a store that version 0.1.0 wrote are taken over: looked at, used, and trained on to the same result.

The fixture holds tiny_p1, done, and tiny_p2, stopped at step 60 of 300, both of a model with an id on the hub, and what
0.1.0 itself came to in an uncut run.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.machine import JOBS, Machine, quick_machine
from wake2vec.contract.failpoints import VARIABLE

FIXTURE = Path(__file__).parent.parent / "fixtures" / "home_0_1_0.tar.xz"
NEW = range(61, 86)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def machine(old: Path, home: str, store: str = "store") -> Machine:
    hub = old / "hf" / "hub" / "models--wake2vec--tiny"
    if not hub.exists():
        shutil.copytree(JOBS / "tiny" / "model", hub / "snapshots" / COMMIT)
        (hub / "refs").mkdir()
        (hub / "refs" / "main").write_text(COMMIT)
    # what a job came to has tests of its own; a job of 0.1.0 cannot say that it should be left out
    here = {"HF_HOME": str(old / "hf"), VARIABLE: "hopes.tick=oom"}
    return quick_machine(home=old / home, store=old / store, environment=here)


def trained(here: Machine) -> list[dict[str, Any]]:
    """What the first steps of this version in the P2, and the evaluation among them, came to."""
    rows = [json.loads(line) for line in here.run_dir("tiny_p2").metrics.read_text().splitlines()[:-1]]
    kept = [row for row in rows if row["kind"] != "event" and row["step"] in NEW]
    return [{key: value for key, value in row.items() if key not in ("seconds", "attempt")} for row in kept]


def near(found: Path, expected: Path) -> bool:
    """Equal to rounding: the fixture was made on another processor than the one that runs this, perhaps."""
    ours, theirs = load_file(found), load_file(expected)
    return ours.keys() == theirs.keys() and all(np.allclose(ours[k], theirs[k], atol=1e-5) for k in ours)


def test_a_job_of_the_old_version_goes_on_to_the_same_result_in_a_new_home_and_in_its_own(old: Path) -> None:
    shutil.copytree(old / "store", old / "copy")
    new = machine(old, "a new home", store="copy")
    new.run("start", "--until-empty")
    assert near(new.home / "runs/tiny_p2/final/adapter_model.safetensors", old / "uncut/adapter_model.safetensors")
    shown = new.run("status", "--once")
    assert "300/300" in shown
    assert "60/60" in shown

    here = machine(old, "home")
    here.start("--until-empty")
    here.wait_for_step("tiny_p2", 90)
    here.power_cut()
    assert [row["step"] for row in trained(here) if row["kind"] == "step"] == list(NEW)
    assert trained(here) == trained(new)  # so that it ends as the other one did


def test_a_home_of_the_old_version_is_shown_and_its_results_are_exported(old: Path) -> None:
    here = machine(old, "home")
    shown = here.run("status", "--once")
    assert "60 of 300" in shown
    here.run("export", "tiny_p1", "--to", str(old / "exported"))
    assert any((old / "exported").iterdir())
    assert near(here.home / "runs/tiny_p1/final/embed_tokens.safetensors", old / "uncut/embed_tokens.safetensors")
