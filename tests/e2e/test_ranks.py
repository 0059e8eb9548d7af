"""One job on several cards through the real command line; gloo stands for NCCL, places on the CPU for cards."""

from __future__ import annotations

import json

from tests.faults.protocols_ranks import strike, two_machines
from tests.machine import Machine
from wake2vec.contract.rundir import read_result


def regimes(machine: Machine) -> list[str]:
    rows = [json.loads(line) for line in machine.run_dir("a").metrics.read_text().splitlines()]
    return [row["text"] for row in rows if row.get("event") == "regime"]


def test_a_job_that_loses_ranks_and_moves_to_other_counts_ends_in_the_bits_of_one_card() -> None:
    with two_machines(160) as (uncut, machine):
        machine.start("--until-empty")
        machine.wait_for_step("a", 25)
        assert '"cards": [\n' in machine.run("status", "--json")
        assert strike(machine, "another rank")
        machine.wait_for_step("a", 45)
        log = machine.run("log", "a")
        assert "rank 1 of 2 is gone: it was ended by signal 9" in log
        assert strike(machine, "rank 0")
        machine.wait_for_step("a", 65)
        assert strike(machine, "the daemon")  # the next one adopts the trainer
        machine.start("--until-empty")
        machine.wait_for_step("a", 85)
        strike(machine, "all")
        machine.cpu_cards = 4
        machine.start("--until-empty")
        machine.wait_for_step("a", 125)
        strike(machine, "all")
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
