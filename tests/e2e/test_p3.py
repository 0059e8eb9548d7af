"""P3 through the real command line: on a P2 on a P1, cut anywhere, on another machine, exported."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.machine import Machine, job_file, quick_machine, slowly_from
from wake2vec.model.precision import DTYPES

QUIET: dict[str, Any] = {"evaluate__max_windows": 4, "evaluate__samples": 0, "data__seq_len": 32}
SHORT: dict[str, Any] = {"train__steps": 8, "evaluate__every_steps": 8, **QUIET}
STEPS = 26


def enqueue(machine: Machine, folder: Path) -> None:
    p3 = job_file(
        folder, "p3", of="tiny_p3", after="p2", train__steps=STEPS, evaluate__every_steps=13, morphemes__nulls=10,
        **QUIET,
    )  # fmt: skip
    assert "33 of 40 pairs may train" in machine.run("enqueue", str(p3))


@pytest.mark.parametrize("dtype", ["bf16", pytest.param("fp32", marks=pytest.mark.sweep)])
def test_it_ends_in_the_same_bits_wherever_it_was_cut_and_exports(tmp_path: Path, dtype: str) -> None:
    uncut = quick_machine(home=tmp_path / "uncut", store=tmp_path / "uncut-store")
    p1 = job_file(tmp_path, "p1", of="tiny_p1", vocab__dtype=dtype, **SHORT)
    p2 = job_file(tmp_path, "p2", of="tiny_p2", after="p1", **SHORT)
    uncut.run("enqueue", str(p1), str(p2))
    uncut.finish()
    machine = quick_machine(home=tmp_path / "cut", store=tmp_path / "cut-store", environment=slowly_from(8))
    shutil.copytree(uncut.home, machine.home)  # both build on the same P2
    shutil.copytree(uncut.store, machine.store)
    enqueue(uncut, tmp_path)
    uncut.finish()
    enqueue(machine, tmp_path)
    chance = random.Random("cuts of p3")
    machine.start("--until-empty", "--take-over")
    machine.wait_for_step("p3", chance.randrange(3, 10))
    cuts = machine.kill_trainer()
    machine.wait_for_step("p3", chance.randrange(10, 14))
    cuts += machine.power_cut()
    shutil.rmtree(machine.home)  # another machine has nothing but the store
    machine.environment.clear()
    machine.start("--until-empty", "--take-over")
    machine.finish()

    assert cuts >= 1, "the run was over before it could be cut"
    assert machine.outcome("p3") == uncut.outcome("p3")
    machine.run("export", "p3", "--to", str(tmp_path / "whole"), "--merge", "--dtype", "fp32")
    machine.run("export", "p3", "--to", str(tmp_path / "adapter"), "--adapter-only")
    ids = json.loads((tmp_path / "whole" / "wake2vec_ids.json").read_text())["entries"]
    first = min(entry["id"] for entry in ids if not entry["known"])
    rows = load_file(tmp_path / "whole" / "model.safetensors")["model.embed_tokens.weight"][first:]
    assert torch.equal(rows, rows.to(DTYPES[dtype]).to(rows.dtype))  # every value is one that was trained
    assert "rows" in load_file(tmp_path / "adapter" / "embed_tokens.safetensors")
