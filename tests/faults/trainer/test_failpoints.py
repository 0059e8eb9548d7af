"""G1, G2, G3: kill -9 at every failpoint of daemon and run directory."""

import pytest

from tests.faults.protocols.runner import kill_at_every_failpoint, many_cuts, soak


def test_a_kill_at_one_failpoint_in_six_leaves_the_same_bits():
    figures = kill_at_every_failpoint((1,), stride=6)

    assert len(figures["places"]) >= 3
    assert (figures["unstartable"], figures["wrong"]) == (0, 0), figures


@pytest.mark.sweep
def test_a_kill_at_every_failpoint_leaves_the_same_bits():
    figures = kill_at_every_failpoint((1,))

    assert len(figures["places"]) >= 14
    assert (figures["unstartable"], figures["wrong"]) == (0, 0), figures


@pytest.mark.sweep  # `make test` kills at random instants, some of them in one run: daemon/test_daemon_killed.py
def test_twenty_cuts_in_one_run_leave_each_step_once():
    figures = many_cuts(20, 200, seed=3)

    assert figures["attempts"] >= 10
    assert (figures["unstartable"], figures["wrong"]) == (0, 0), figures


def test_a_soak_with_kills_and_store_faults_needs_no_hand():
    figures = soak(10)

    assert figures["kills"] >= 2
    assert (figures["unstartable"], figures["wrong"]) == (0, 0), figures
