"""G1: the wall clock decides nothing but a back-off, and that only within reason."""

import pytest

from tests.simulated import Clock, Home
from tests.unit.runner.conftest import job_spec

DAY = 86_400.0


@pytest.mark.parametrize("jump", [-DAY, DAY])
def test_a_day_forth_or_back_in_every_state_changes_nothing(tmp_path, jump):
    clock = Clock()
    home = Home.new(tmp_path / "home", tmp_path / "store", clock)
    home.add(job_spec("a", steps=40, checkpoint={"every_steps": 10}))
    clock.offset += jump
    home.until(lambda: home.trainers.living)
    clock.offset -= jump
    home.train(15)
    home.rounds(2)
    clock.offset += jump
    home.end_trainer("failed", cause="boom")
    home.rounds(1)
    clock.offset -= jump
    home.until(lambda: home.trainers.living)
    clock.offset += jump
    home.kill_daemon()
    home.train(40)
    home.until(lambda: home.state() == "succeeded")

    assert home.durable() == 40
    assert home.outcomes() == ["failed", "completed"]
    home.queue.close()


@pytest.mark.parametrize("jump", [-DAY, DAY])
def test_a_rival_with_another_clock_neither_steals_nor_waits_longer(tmp_path, jump):
    clock, skewed = Clock(), Clock()
    skewed.offset += jump
    home = Home.new(tmp_path / "home", tmp_path / "store", clock)
    home.add(job_spec("a", steps=40, checkpoint={"every_steps": 10}))
    home.until(lambda: home.trainers.living)
    home.train(10)
    home.rounds(2)
    other = Home.new(tmp_path / "other", tmp_path / "store", skewed)
    for _ in range(15):
        home.rounds(1, seconds=10)
        other.rounds(1, seconds=10)
    assert not other.trainers.living

    for _ in range(15):
        other.rounds(1, seconds=10)  # the first one is silent from here on

    assert other.trainers.living
    home.queue.close()
    other.queue.close()
