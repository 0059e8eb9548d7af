"""G1, G10: a trainer that hangs, crashes, diverges or runs out of memory is dealt with by what it does."""

import json
import signal

import pytest

from runner.queue import attempts, checkpoints, ledger
from tests.faults.world import PATIENCE_SECONDS, assert_whole, fake_spec, wait_until

PACE = {"seconds_per_step": 0.01, "save_every": 5, "once": True}


def outcomes(world, name="a"):
    with world.queue() as queue:
        return [str(one.outcome) for one in attempts.list_attempts(queue, name)]


def test_a_trainer_without_a_sign_of_life_is_ended_and_the_job_goes_on(world):
    world.numbers["hang_minutes"] = 0.02
    world.numbers["grace_seconds"] = 0.5
    world.add(fake_spec(), told=PACE | {"hang_at": 12, "ignore_sigterm": True})

    assert world.run() == 0

    assert_whole(world)
    assert outcomes(world) == ["hung", "completed"]
    assert any("no sign of life" in text for text in world.events())


def test_a_trainer_that_crashes_is_started_again(world):
    world.add(fake_spec(), told=PACE | {"die_at": 12})

    assert world.run() == 0

    assert_whole(world)
    assert outcomes(world) == ["lost", "completed"]


def test_a_trainer_that_always_crashes_at_the_same_step_ends_in_failed_with_the_reason(world):
    world.add(fake_spec(runner={"max_attempts": 3}), told=PACE | {"die_at": 12, "once": False})

    assert world.run() == 22

    job = world.job()
    assert str(job.state) == "failed"
    assert job.reason.startswith(
        "3 attempts in a row kept no new step; the last one ended as lost: the trainer was ended"
    )
    assert world.durable_step() == 10
    assert outcomes(world) == ["lost"] * 4  # the first of them had kept ten steps


def test_running_out_of_memory_costs_an_attempt_and_the_smaller_plan_is_remembered(world):
    world.add(fake_spec(), told=PACE | {"oom_at": 12, "plan": {"micro_batch": 2}})

    assert world.run() == 0

    assert_whole(world)
    assert outcomes(world) == ["oom", "completed"]
    order = json.loads(world.run_dir().order.read_text())
    assert order["plan"] == {"micro_batch": 2}


def test_divergence_goes_back_before_the_newest_checkpoint_once(world):
    world.add(fake_spec(), told=PACE | {"diverge_at": 22})

    assert world.run() == 0

    assert_whole(world)
    assert outcomes(world) == ["diverged", "completed"]
    with world.queue() as queue:
        (regime,) = ledger.list_regimes(queue, "a")
        assert (regime.change["what"], regime.change["step"]) == ("quarantine", 20)
        assert regime.durable_at is not None
        assert attempts.list_attempts(queue, "a")[1].first_step == 15


def test_divergence_that_comes_back_fails_the_job(world):
    world.add(fake_spec(), told=PACE | {"diverge_at": 22, "once": False})

    assert world.run() == 22

    job = world.job()
    assert str(job.state) == "failed"
    assert "diverged again" in job.reason
    assert job.remedy == "a lower train.lr"


def test_a_set_up_fault_with_a_remedy_fails_at_once(world):
    world.add(fake_spec(), told={"fail_setup": "the lexicon is empty", "remedy": "give it words"})

    assert world.run() == 22

    job = world.job()
    assert (str(job.state), job.reason, job.remedy) == ("failed", "cannot start: the lexicon is empty", "give it words")
    assert outcomes(world) == ["failed"]


def test_a_job_that_stops_early_is_done(world):
    world.add(fake_spec(), told=PACE | {"stop_early_at": 30})

    assert world.run() == 0

    assert str(world.job().state) == "succeeded"
    assert [step for step, _ in world.metrics()] == list(range(1, 31))
    assert world.durable_step() == 30


def test_p2_behind_a_failed_p1_is_blocked_and_the_daemon_leaves(world):
    world.add(fake_spec(), told={"fail_setup": "no", "remedy": "yes"})
    world.add(fake_spec("b", phase="p2", after="a"))

    assert world.run() == 22

    assert str(world.job("b").state) == "queued"
    assert outcomes(world, "b") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_makes_durable_and_says_what_is_safe(world, number):
    world.add(fake_spec(steps=2000, every=500), told={"seconds_per_step": 0.01})
    daemon = world.start()
    wait_until(lambda: world.step() >= 7)
    daemon.send_signal(number)

    assert daemon.wait(timeout=PATIENCE_SECONDS) == 130

    step = world.durable_step()
    assert step >= 7
    assert world.trainer() is None
    assert f"a: queued; step {step} of 2000 is safe in the store" in world.output()
    assert outcomes(world) == ["yielded"]
    with world.queue() as queue:
        assert checkpoints.log_state(queue, "a").epoch is None  # the lease was given back
