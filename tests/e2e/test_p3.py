"""P3 through the real command line: on a P2 on a P1, cut anywhere, on another machine, exported."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tests.machine import Machine, job_file, quick_machine

QUIET: dict[str, Any] = {"evaluate__max_windows": 4, "evaluate__samples": 0}
SHORT: dict[str, Any] = {"train__steps": 20, "evaluate__every_steps": 20, **QUIET}
STEPS = 80


def enqueue(machine: Machine, folder: Path) -> None:
    p1 = job_file(folder, "p1", of="tiny_p1", **SHORT)
    p2 = job_file(folder, "p2", of="tiny_p2", after="p1", **SHORT)
    p3 = job_file(
        folder, "p3", of="tiny_p3", after="p2", train__steps=STEPS, evaluate__every_steps=40, morphemes__nulls=10,
        **QUIET,
    )  # fmt: skip
    told = machine.run("enqueue", str(p1), str(p2), str(p3))
    assert "33 of 40 pairs may train" in told


def test_it_ends_in_the_same_bits_wherever_it_was_cut_and_exports(tmp_path: Path) -> None:
    uncut = quick_machine(home=tmp_path / "uncut", store=tmp_path / "uncut-store")
    enqueue(uncut, tmp_path)
    uncut.finish()
    machine = quick_machine(home=tmp_path / "cut", store=tmp_path / "cut-store")
    enqueue(machine, tmp_path)
    chance = random.Random("cuts of p3")
    machine.start("--until-empty")
    machine.wait_for_step("p3", chance.randrange(3, 40))
    cuts = machine.kill_trainer()
    machine.wait_for_step("p3", chance.randrange(41, 60))
    cuts += machine.power_cut()
    shutil.rmtree(machine.home)  # another machine has nothing but the store
    machine.start("--until-empty", "--take-over")
    machine.finish()

    assert cuts >= 1, "the run was over before it could be cut"
    assert machine.outcome("p3") == uncut.outcome("p3")
    machine.run("export", "p3", "--to", str(tmp_path / "whole"), "--merge")
    machine.run("export", "p3", "--to", str(tmp_path / "adapter"), "--adapter-only")
    assert (tmp_path / "whole" / "model.safetensors").is_file()
    assert "rows" in load_file(tmp_path / "adapter" / "embed_tokens.safetensors")
