"""G1, G2, G3: kill -9 of the daemon, the trainer or both, at any instant, changes nothing about the result."""

import random
import signal
import subprocess
from contextlib import suppress

import pytest

from runner.queue.attempts import list_attempts
from tests.faults.world import PATIENCE_SECONDS, assert_whole, fake_spec, wait_until

PACE = {"seconds_per_step": 0.02, "save_every": 5}


def test_a_trainer_outlives_its_daemon_and_is_adopted(world):
    world.add(fake_spec())
    daemon = world.start(told=PACE)
    wait_until(lambda: world.step() >= 5)
    pid = world.trainer()
    daemon.kill()
    daemon.wait()

    assert world.trainer() == pid
    assert world.run(told=PACE) == 0

    assert_whole(world)
    with world.queue() as queue:
        assert [str(one.outcome) for one in list_attempts(queue, "a")] == ["completed"]


def test_a_killed_trainer_is_started_again_from_its_newest_checkpoint(world):
    world.add(fake_spec())
    daemon = world.start(told=PACE)
    wait_until(lambda: world.step() >= 12)
    world.kill_trainer()

    assert daemon.wait(timeout=PATIENCE_SECONDS) == 0

    assert_whole(world)
    assert any("lost at step" in text for text in world.events())


def test_both_killed_and_the_home_lost_the_job_goes_on_from_the_store(world):
    world.add(fake_spec())
    daemon = world.start(told=PACE)
    wait_until(lambda: world.durable_step() >= 10)
    daemon.kill()
    daemon.wait()
    world.kill_trainer()

    assert world.run("second", told=PACE) == 0

    assert_whole(world, home="second")
    assert any("came from the store" in text for text in world.events("second"))


@pytest.mark.parametrize("seed", range(3))
def test_kills_at_random_instants_leave_the_same_bits_and_each_step_once(world, seed):
    draw = random.Random(seed)
    world.add(fake_spec())
    world.add(fake_spec("b", phase="p2", after="a", steps=40))
    daemon = world.start(told=PACE)
    for _ in range(6):
        with suppress(subprocess.TimeoutExpired):
            daemon.wait(timeout=draw.uniform(0.1, 0.8))
        what = draw.choice(["trainer", "daemon", "both"])
        if what != "daemon":
            world.kill_trainer()
        if what != "trainer":
            daemon.send_signal(signal.SIGKILL)
            daemon.wait()
            daemon = world.start(told=PACE)

    assert daemon.wait(timeout=PATIENCE_SECONDS) == 0

    assert_whole(world)
    assert_whole(world, "b", 40)
