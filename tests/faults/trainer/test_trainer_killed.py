"""G1, G2, G3: kill -9 of real trainers, at random instants and at a failpoint, leaves the same bits."""

import pytest

from tests.faults.apart import run_apart
from tests.faults.protocols.store import budget


@pytest.mark.sweep  # `make test` does so through the command line: e2e/test_resume_is_invisible.py
def test_real_trainers_killed_at_random_instants_end_in_the_same_bits_and_figures():
    figures = run_apart("trainer", "kills_of_warm_trainers", kills=budget(200, 8), seed=1)

    assert figures["kills"] >= 8
    assert (figures["unstartable"], figures["wrong"]) == (0, 0), figures


@pytest.mark.sweep  # `make test` kills at any write of a checkpoint in a process of its own: train/test_checkpoint.py
def test_real_trainers_killed_at_each_failpoint_of_a_checkpoint_end_in_the_same_bits():
    figures = run_apart("trainer", "kills_at_failpoints", hits=[2], only="checkpoint")

    assert figures["runs"] >= 8
    assert (figures["unstartable"], figures["wrong"]) == (0, 0), figures
