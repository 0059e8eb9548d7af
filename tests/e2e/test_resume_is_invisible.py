"""G2 and G1 through the command line: cut anywhere, any number of times, a job ends with the same bits."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.machine import Machine, job_file, quick_machine, short_text

CUTS = 6


def enqueue_pair(machine: Machine, folder: Path, load: str) -> None:
    common: dict[str, Any] = {
        "model__load": load, "evaluate__max_windows": 8, "evaluate__samples": 0, "data__seq_len": 32,
        **short_text(folder),
    }  # fmt: skip
    p1 = job_file(
        folder, "p1", of="tiny_p1", train__steps=90, checkpoint__every_steps=20, evaluate__every_steps=50, **common
    )
    p2 = job_file(
        folder,
        "p2",
        of="tiny_p2",
        after="p1",
        train__steps=70,
        checkpoint__every_steps=20,
        evaluate__every_steps=40,
        lora__dropout=0.1,
        **common,
    )
    machine.run("enqueue", str(p1), str(p2))


def cut(machine: Machine, chance: random.Random, *words: str) -> bool:
    """Kill something at a random instant: while it loads, or after some more steps. False when nothing lived."""
    if not machine.is_alive:
        machine.start("--until-empty", *words)
    if chance.random() < 0.3:
        time.sleep(chance.uniform(0.0, 1.0))
    else:
        job = "p2" if machine.run_dir("p2").order.exists() else "p1"
        machine.wait_for_step(job, machine.step(job) + chance.randrange(1, 20))
    return chance.choice((machine.kill_trainer, machine.kill_daemon, machine.power_cut))()


@pytest.mark.parametrize("load", [pytest.param("fp32", marks=pytest.mark.sweep), "nf4"])
def test_a_run_cut_at_random_instants_and_moved_to_a_new_machine_ends_in_the_same_bits(
    tmp_path: Path, load: str
) -> None:
    uncut = quick_machine(home=tmp_path / "uncut", store=tmp_path / "uncut-store")
    enqueue_pair(uncut, tmp_path, load)
    uncut.finish()
    machine = quick_machine(home=tmp_path / "cut", store=tmp_path / "cut-store")
    enqueue_pair(machine, tmp_path, load)
    chance = random.Random(f"cuts of {load}")

    cuts = sum(cut(machine, chance) for _ in range(CUTS // 2))
    # the machine vanishes with everything on it; another one has nothing but the store
    machine.power_cut()
    shutil.rmtree(machine.home)
    cuts += 1 + sum(cut(machine, chance, "--take-over") for _ in range(CUTS // 2))
    if not machine.is_alive:  # perhaps cut before it had taken anything over
        machine.start("--until-empty", "--take-over")
    machine.finish()

    assert cuts >= 5, "the run was over before it could be cut"
    for job in ("p1", "p2"):
        assert machine.outcome(job) == uncut.outcome(job)
