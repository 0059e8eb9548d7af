"""A job of two ranks in a queue that two homes share: a home that is gone holds neither card."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.faults.protocols.ranks import PATIENCE_SECONDS, strike
from tests.faults.world import wait_until
from tests.machine import Machine, job_file
from tests.postgres_server import PostgresServer


@pytest.mark.timeout(1800)
def test_another_home_goes_on_with_a_job_of_two_ranks_and_ends_in_the_bits_of_one(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    path = job_file(
        tmp_path, "a", of="tiny_p1", train__steps=60, train__cards="auto", train__spread="layers",
        train__reduction="fixed", checkpoint__every_steps=20, evaluate__every_steps=30, evaluate__samples=0,
    )  # fmt: skip
    shared = {
        "store": tmp_path / "store", "environment": {"WAKE2VEC_DB": postgres.new_database()}, "cpu_cards": 2,
        "settings": "lease_seconds = 10\n",
    }  # fmt: skip
    first, second = (Machine(home=tmp_path / name, **shared) for name in ("first", "second"))
    first.run("enqueue", str(path))
    first.start("--until-empty")
    first.wait_for_step("a", 21, PATIENCE_SECONDS)
    assert strike(first, "another rank")
    first.wait_for_step("a", 41, PATIENCE_SECONDS)
    assert first.power_cut()
    second.start()  # not --until-empty: it would leave the job to the other home, which may be there still
    wait_until(second.run_dir("a").final.is_dir, PATIENCE_SECONDS, "the end in the other home")
    second.daemon.send_signal(signal.SIGTERM)
    second.daemon.wait()
    second.finish(PATIENCE_SECONDS)
    uncut = Machine(home=tmp_path / "uncut", store=tmp_path / "uncut-store")
    uncut.run("enqueue", str(path))
    uncut.run("set", "a", "train.spread=auto")
    uncut.finish(PATIENCE_SECONDS)

    assert second.outcome("a") == uncut.outcome("a")
    assert "started on 2 x cpu from step" in second.start_log.read_text()
