"""What an attempt imports before it has anything to do."""

from __future__ import annotations

import os
import sys
from typing import Any

from tests.faults.apart import run_apart
from wake2vec.train.waiting import NO_COMPILER, nothing_compiled


def test_no_compiler_is_imported_with_the_rest_and_a_persons_command_finds_nothing_of_it() -> None:
    assert run_apart(__name__, "imported") == {"peft": True, "compiler": False, "told": False}


def imported() -> dict[str, Any]:
    """In a process that has imported what a trainer imports, and nothing else."""
    return {
        "peft": "peft" in sys.modules,
        "compiler": "torch._inductor.compile_fx" in sys.modules,
        "told": NO_COMPILER in os.environ,
    }


def test_what_a_person_says_of_the_compiler_stands() -> None:
    environment = {NO_COMPILER: "0"}

    with nothing_compiled(environment):
        assert environment == {NO_COMPILER: "0"}

    assert environment == {NO_COMPILER: "0"}
