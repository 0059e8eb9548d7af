"""The command that shows the promise; on a machine with the wheel alone it is shown by test_wheel.py."""

from __future__ import annotations

from pathlib import Path

from runner.commands.setup.demo import CUT_AT
from tests.machine import quick_machine
from wake2vec.contract.failpoints import VARIABLE


def test_the_plug_is_pulled_and_the_bits_are_the_same(tmp_path: Path) -> None:
    rest = {VARIABLE: f"loop.logged=stall:{CUT_AT + 1}"}  # so that it is struck there, at rest or not
    machine = quick_machine(home=tmp_path / "home", store=tmp_path / "store", environment=rest)

    told = machine.run("demo")

    assert "their home wiped" in told
    assert told.splitlines()[-1] == "the same bits"
