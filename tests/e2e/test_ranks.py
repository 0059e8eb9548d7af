"""One job on several cards through the real command line; gloo stands for NCCL, places on the CPU for cards."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from tests.faults.protocols.ranks import strike, two_machines
from tests.machine import Machine
from wake2vec.contract.lock import read_lock
from wake2vec.contract.rundir import read_heartbeat, read_result


def regimes(machine: Machine) -> list[str]:
    rows = [json.loads(line) for line in machine.run_dir("a").metrics.read_text().splitlines()]
    return [row["text"] for row in rows if row.get("event") == "regime"]


def until(condition: Callable[[], object], what: str) -> None:
    give_up = time.monotonic() + 400
    while not condition():
        assert time.monotonic() < give_up, what
        time.sleep(0.02)


def trains(machine: Machine, attempt: int) -> None:
    """Wait until that attempt has taken a step."""

    def has_begun() -> bool:
        beat = read_heartbeat(machine.run_dir("a"))
        return beat is not None and beat.attempt == attempt and beat.state == "training"

    until(has_begun, f"attempt {attempt} does not train: {machine.start_log.read_text()[-3000:]}")


def test_a_job_that_loses_ranks_and_moves_to_other_counts_ends_in_the_bits_of_one_card() -> None:
    with two_machines(600) as (uncut, machine):
        machine.start("--until-empty")
        trains(machine, 1)
        assert '"cards": [\n' in machine.run("status", "--json")
        machine.wait_for_step("a", 25)
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
        machine.wait_for_step("a", machine.step("a") + 25)
        assert strike(machine, "all")
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


def test_a_job_whose_layers_lie_on_two_cards_ends_in_the_bits_of_one_and_waits_where_only_one_is() -> None:
    with two_machines(60) as (uncut, machine):
        machine.run("set", "a", "train.spread=layers")
        machine.start("--until-empty")
        trains(machine, 1)
        machine.wait_for_step("a", 21)
        assert strike(machine, "another rank")
        trains(machine, 2)
        log = machine.run_dir("a").log.read_text()
        assert "the layers are dealt out to 2 ranks: 1 + 1" in log
        assert "rank 1 of 2 is gone: it was ended by signal 9" in log, log[-3000:]
        assert strike(machine, "all")
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
