"""One job on several cards through the real command line; gloo stands for NCCL, places on the CPU for cards."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.errors import NeedsYou
from tests.faults.protocols.ranks import strike, two_machines
from tests.machine import Machine, job_file, quick_machine, slowly_from
from wake2vec.contract.lock import read_lock
from wake2vec.contract.rundir import read_heartbeat, read_result

SMALL = {"checkpoint__every_steps": 5, "evaluate__max_windows": 4, "data__seq_len": 32}


def regimes(machine: Machine) -> list[str]:
    rows = [json.loads(line) for line in machine.run_dir("a").metrics.read_text().splitlines()]
    return [row["text"] for row in rows if row.get("event") == "regime"]


def until(condition: Callable[[], object], what: str) -> None:
    give_up = time.monotonic() + 400
    while not condition():
        assert time.monotonic() < give_up, what
        time.sleep(0.02)


def trains(machine: Machine, attempt: int) -> None:
    """Wait until that attempt, or a later one, has taken a step."""

    def has_begun() -> bool:
        beat = read_heartbeat(machine.run_dir("a"))
        return beat is not None and beat.attempt >= attempt and beat.state == "training"

    until(has_begun, f"attempt {attempt} does not train: {machine.start_log.read_text()[-3000:]}")


def test_a_job_that_loses_ranks_and_moves_to_other_counts_ends_in_the_bits_of_one_card() -> None:
    with two_machines(60, a_machine=quick_machine, **SMALL) as (uncut, machine):
        machine.environment |= slowly_from(8)
        machine.start("--until-empty")
        trains(machine, 1)
        assert '"cards": [\n' in machine.run("status", "--json")
        machine.wait_for_step("a", 9)
        assert strike(machine, "another rank")
        trains(machine, 2)
        assert "rank 1 of 2 is gone: it was ended by signal 9" in machine.run_dir("a").log.read_text()
        assert strike(machine, "rank 0")
        trains(machine, 3)
        assert strike(machine, "the daemon")  # the next one adopts the trainer
        machine.start("--until-empty")
        until(lambda: read_lock(machine.home / "daemon.lock"), "no daemon")
        assert strike(machine, "all")
        machine.cpu_cards = 4
        machine.start("--until-empty")
        trains(machine, 4)
        machine.wait_for_step("a", machine.step("a") + 6)
        assert strike(machine, "all")
        machine.environment.clear()
        machine.cpu_cards = 1
        machine.finish()

        assert machine.outcome("a") == uncut.outcome("a")
        assert [text for text in regimes(machine) if text.startswith("goes on with")] == [
            "goes on with 4 cards after 2 cards",
            "goes on with 1 card after 4 cards",
        ]
        ended = read_result(machine.run_dir("a"))
        assert ended is not None
        assert ended.outcome == "completed"
        said = machine.start_log.read_text()
        assert all(f"started on {where} from step" in said for where in ("2 x cpu", "4 x cpu", "cpu"))


DRIVER = """
import os
from types import SimpleNamespace

NAMES = os.environ["CARDS"].split(",")

class NVMLError(Exception):
    pass

def nvmlInit(): pass
def nvmlShutdown(): pass
def nvmlDeviceGetCount(): return len(NAMES)
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetUUID(index): return f"GPU-{index}"
def nvmlDeviceGetMemoryInfo(index): return SimpleNamespace(total=15 << 30, used=0)
def nvmlDeviceGetName(index): return NAMES[index]
def nvmlDeviceGetCudaComputeCapability(index): return (7, 5)
def nvmlDeviceGetComputeRunningProcesses(index): return []
"""


def machine_with(tmp_path: Path, cards: str = "", **environment: str) -> Machine:
    """A job that wants two cards, on a machine whose driver shows these."""
    if cards:
        (tmp_path / "driver").mkdir()
        (tmp_path / "driver" / "pynvml.py").write_text(DRIVER)
        environment |= {"CARDS": cards, "PYTHONPATH": str(tmp_path / "driver")}
    machine = quick_machine(home=tmp_path / "home", store=tmp_path / "store", environment=environment, cpu_cards=2)
    machine.run("enqueue", str(job_file(tmp_path, "a", of="tiny_p1", train__steps=4, train__cards=2)))
    return machine


def test_cards_that_differ_are_named_and_nothing_starts(tmp_path: Path) -> None:
    machine = machine_with(tmp_path, "Tesla T4,NVIDIA L4")
    machine.start()
    try:
        until(lambda: "choose equal ones with CUDA_VISIBLE_DEVICES" in machine.start_log.read_text(), "the reason")
        assert "the cards here differ: Tesla T4 (GPU 0), NVIDIA L4 (GPU 1)" in machine.run("status", "--json")
    finally:
        machine.power_cut()
    assert "started on" not in machine.start_log.read_text()


@pytest.mark.parametrize(
    ("cards", "environment", "cause", "remedy"),
    [
        ("Tesla T4,Tesla T4", {}, "the driver shows it, and PyTorch", "install a build for the CUDA of"),
        ("", {"GLOO_SOCKET_IFNAME": "nowhere0"}, "cannot talk to the others over gloo", "set GLOO_SOCKET_IFNAME"),
    ],
)
def test_ranks_that_cannot_work_fail_at_once_with_what_to_do(
    tmp_path: Path, cards: str, environment: dict[str, str], cause: str, remedy: str
) -> None:
    machine = machine_with(tmp_path, cards, **environment)
    machine.start("--until-empty")
    assert machine.daemon is not None
    assert machine.daemon.wait(240) == NeedsYou.exit_code
    told = machine.start_log.read_text()

    assert cause in told
    assert remedy in told
    assert "cannot start: " in told
    assert "Traceback" not in told


def test_a_job_whose_layers_lie_on_two_cards_ends_in_the_bits_of_one_and_waits_where_only_one_is() -> None:
    with two_machines(40, a_machine=quick_machine, **SMALL) as (uncut, machine):
        machine.run("set", "a", "train.spread=layers")
        # no forks here: two ranks as a person's command starts them
        cold = Machine(home=machine.home, store=machine.store, cpu_cards=2, environment=slowly_from(8))
        try:
            cold.start("--until-empty")
            trains(cold, 1)
            cold.wait_for_step("a", 9)
            assert strike(cold, "another rank")
            log = cold.run_dir("a").log
            until(lambda: "rank 1 of 2 is gone: it was ended by signal 9" in log.read_text(), "the death of a rank")
        finally:
            was_alive = strike(cold, "all")
        assert was_alive
        assert "the layers are dealt out to 2 ranks: 1 + 1" in log.read_text()
        machine.environment |= slowly_from(4)
        machine.start("--until-empty")
        trains(machine, 2)
        assert strike(machine, "all")
        machine.environment.clear()
        machine.cpu_cards = 1
        machine.start("--until-empty")
        until(
            lambda: "waits for 2 equal cards, 1 here" in machine.run("status", "--json"), "it does not say why it waits"
        )
        machine.run("set", "a", "train.spread=auto")
        machine.finish()

        assert machine.outcome("a") == uncut.outcome("a")
        assert [text for text in regimes(machine) if text.startswith("goes on with")] == [
            "goes on with 1 card after 2 cards, each with some of the layers",
        ]
