"""The simulation behind the table of checkpoint policies."""

import random

from bench.resilience.cadence import STEPS, Policy, every_steps, measure, ours, simulate


def test_a_policy_that_saves_less_often_than_machines_vanish_never_ends():
    assert not simulate_with(every_steps(200), 240.0).trained >= STEPS * 240.0


def simulate_with(policy: Policy, seconds: float):
    return simulate(policy, seconds, random.Random(0), most_sessions=200)


def test_time_is_conserved():
    outcome = simulate_with(ours(5.0), 99.0)

    assert outcome.trained == STEPS * 99.0
    assert outcome.repeated >= 0
    assert 0 < outcome.lost_share < 0.1


def test_ours_loses_less_than_saving_every_fifty_steps_at_every_pace():
    for seconds in (9.0, 99.0, 135.0):
        assert measure(ours(5.0), seconds).lost_share < measure(every_steps(50), seconds).lost_share
