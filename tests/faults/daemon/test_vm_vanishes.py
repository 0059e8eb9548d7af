"""G1, G2: machine after machine vanishes, each time with everything on it."""

import random

import pytest

from tests.faults.world import assert_whole, fake_spec, wait_until

PACE = {"seconds_per_step": 0.02, "save_every": 4}
STEPS = 100


def more_is_durable(world, home, steps):
    """Wait until this home has made so many steps durable beyond what it found in the store, or all that there are: on
    a busy machine it may get far before we look."""
    reached = 0 if home == "home" else wait_until(lambda: world.durable_step(home=home))
    wait_until(lambda: world.durable_step(home=home) >= min(reached + steps, STEPS))


@pytest.mark.sweep  # in `make test` a real job does: e2e/test_a_month.py
def test_a_job_hops_over_five_machines_and_ends_in_the_same_bits(world):
    draw = random.Random(0)
    world.add(fake_spec(steps=STEPS))
    name = "home"
    for number in range(5):
        daemon = world.start(name, told=PACE)
        more_is_durable(world, name, draw.choice((4, 8, 12)))
        daemon.kill()
        daemon.wait()
        world.kill_trainer(name)
        name = f"machine{number}"

    assert world.run(name, told=PACE) == 0

    assert_whole(world, steps=STEPS, home=name)


def test_a_machine_that_vanishes_before_its_first_checkpoint_leaves_the_queue(world):
    world.add(fake_spec())
    daemon = world.start(told=PACE | {"save_every": 20, "seconds_per_step": 0.2})
    wait_until(lambda: world.step() >= 1)
    daemon.kill()
    daemon.wait()
    world.kill_trainer()

    assert world.run("second", told=PACE) == 0

    assert_whole(world, home="second")


def test_a_finished_job_is_never_run_again_on_a_new_machine(world):
    world.add(fake_spec())
    assert world.run(told=PACE) == 0

    assert world.run("second", told=PACE) == 0

    assert "started on" not in world.output("second")
    assert_whole(world, home="second")
