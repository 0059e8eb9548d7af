"""`extend` through the real command line: a job at rest gets more steps, then it is cut, and its copy is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.faults.world import wait_until
from tests.machine import job_file, quick_machine, short_text, slowly_from
from wake2vec.train.schedule import learning_rate

STEPS, MORE, PEAK, WARMUP = 40, 60, 5e-3, 2

SHORT: dict[str, Any] = {"evaluate__max_windows": 4, "evaluate__samples": 0}


def test_an_extended_job_keeps_the_rates_it_had_and_ends_in_the_same_bits_when_cut(tmp_path: Path) -> None:
    uncut = quick_machine(home=tmp_path / "home", store=tmp_path / "store", environment=slowly_from(20))
    file = job_file(
        tmp_path, "p1", of="tiny_p1", train__steps=STEPS, checkpoint__every_steps=20, evaluate__every_steps=40, **SHORT,
        **short_text(tmp_path),
    )  # fmt: skip
    uncut.run("enqueue", str(file))
    uncut.start()
    uncut.wait_for_step("p1", 20)
    uncut.run("hold", "p1")
    wait_until(lambda: '"held"' in uncut.run("status", "--json"), 120, "the hold")
    uncut.power_cut()
    uncut.environment.clear()
    said = json.loads(uncut.run("extend", "p1", str(MORE), "--json"))
    uncut.run("release", "p1")
    cut = quick_machine(home=tmp_path / "copy", store=tmp_path / "copied-store", environment=slowly_from(18, 24))
    shutil.copytree(uncut.home, cut.home)
    shutil.copytree(uncut.store, cut.store)

    uncut.finish()
    cut.start("--until-empty", "--take-over")  # a copy of a home is another home
    cut.wait_for_step("p1", STEPS)
    cut.kill_trainer()
    cut.wait_for_step("p1", STEPS + 5)
    cut.power_cut()
    cut.finish()

    assert cut.outcome("p1") == uncut.outcome("p1")
    steps = [row for row in uncut.outcome("p1")["metrics"] if row["kind"] == "step"]
    assert [row["step"] for row in steps] == list(range(1, MORE + 1))
    assert said["steps"] == MORE
    turned = next(n for n, row in enumerate(steps) if row["lr"] != pytest.approx(rate(n, STEPS)))
    assert 20 <= turned < STEPS
    for number, row in enumerate(steps):
        assert row["lr"] == pytest.approx(rate(number, STEPS if number < turned else MORE))


def rate(step: int, total: int) -> float:
    """What the job file's schedule gives when it knows of `total` steps."""
    return learning_rate(step, peak=PEAK, total=total, warmup_steps=WARMUP, kind="cosine")


def test_a_job_that_is_done_goes_on_elsewhere_to_the_bits_of_one_extended_before_its_end(tmp_path: Path) -> None:
    file = job_file(
        tmp_path, "p1", of="tiny_p1", train__steps=30, checkpoint__every_steps=10, evaluate__every_steps=30, **SHORT,
        **short_text(tmp_path),
    )  # fmt: skip
    slow = slowly_from(10, 18)
    early = quick_machine(home=tmp_path / "early", store=tmp_path / "early-store", environment=slow)
    early.run("enqueue", str(file))
    early.start("--until-empty")
    early.wait_for_step("p1", 10)
    early.run("extend", "p1", "50")  # at work: from its old end on
    early.finish()

    late = quick_machine(home=tmp_path / "late", store=tmp_path / "store")
    late.run("enqueue", str(file))
    late.finish()
    assert late.outcome("p1")["step"] == "checkpoint-30"
    late.run("extend", "p1", "50")
    late.environment |= slow
    late.start("--until-empty")
    late.wait_for_step("p1", 43)  # beyond a milestone, which the next home goes on from
    late.power_cut()
    fresh = quick_machine(home=tmp_path / "fresh", store=tmp_path / "store")
    fresh.start("--until-empty", "--take-over")
    fresh.finish()

    assert fresh.outcome("p1") == early.outcome("p1")
    late.finish()
    late.run("export", "p1", "--to", str(tmp_path / "exported"))
    assert "50/50" in late.run("status", "--once")
    assert late.final("p1") == fresh.final("p1")
