"""`queue move` between a home and a server, and back, in the middle of a job and under daemons that live."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import DaemonRunning, IllegalTransition, JobExists
from runner.queue import attempts, sharing
from runner.states import Outcome
from tests.faults.world import World, assert_whole, fake_spec, wait_until
from tests.postgres_server import PASSWORD, PostgresServer

PACE = {"seconds_per_step": 0.05, "save_every": 5}
HOME = "one"


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def move(world: World, old: object, new: object, *, code: int = 0) -> str:
    command = [str(Path(sys.executable).parent / "wake2vec-runner"), "--home", str(world.home("here")), "queue", "move"]
    environment = {key: value for key, value in os.environ.items() if key != "WAKE2VEC_DB"}
    done = subprocess.run(
        [*command, str(old), str(new)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    return done.stdout + done.stderr


def works_until(world: World, step: int, home: str = HOME) -> None:
    """A daemon until the store has that step, then the clean end of a session."""
    daemon = world.start(home, told=PACE)
    wait_until(
        lambda: daemon.poll() is not None or world.durable_step("a", home) >= step, what=f"step {step} in the store"
    )
    assert daemon.poll() is None, world.output(home)[-3000:]
    daemon.send_signal(signal.SIGTERM)
    world.wait(daemon, home)


def at_work(world: World) -> list[str]:
    with world.queue("two") as queue, queue.read() as connection:
        return sharing.at_work(connection, 60.0)


def test_a_job_moves_to_a_server_and_back_in_the_middle_and_ends_in_the_bits_of_one_that_did_not(
    world: World, url: str
) -> None:
    world.add(fake_spec(), home=HOME)
    works_until(world, 10)

    assert "1 job with all their rows are in" in move(world, world.home(HOME), url)
    world.variables = {"WAKE2VEC_DB": url}
    works_until(world, 30)

    move(world, url, world.home(HOME), code=JobExists.exit_code)  # what lies there is older, and nobody's to drop
    move(world, url, world.home("back"))
    world.variables = {}
    assert world.run("back", told=PACE) == 0, world.output("back")[-3000:]
    assert_whole(world, home="back")

    # the queue that was left behind, against the advice: it learns from the store that all is done
    assert world.run(HOME, told=PACE) == 0, world.output(HOME)[-3000:]
    assert str(world.job("a", HOME).state) == "succeeded"
    with world.queue(HOME) as queue:
        assert [one.outcome for one in attempts.list_attempts(queue, "a")].count(Outcome.COMPLETED) == 0


def test_a_queue_is_not_moved_under_a_daemon_that_lives(world: World, url: str, postgres: PostgresServer) -> None:
    world.add(fake_spec(), home=HOME)
    daemon = world.start(HOME, told=PACE, until_empty=False)
    wait_until(lambda: world.step("a", HOME) >= 1, what="a step")
    assert "a daemon works here already" in move(world, world.home(HOME), url, code=DaemonRunning.exit_code)
    daemon.send_signal(signal.SIGTERM)
    world.wait(daemon, HOME)

    own, world.url, world.variables = world.url, f"dir:{world.root / 'another'}", {"WAKE2VEC_DB": url}
    idle = world.start("two", until_empty=False)  # queue and store are empty: it would finish what it finds in one
    wait_until(lambda: at_work(world), what="the second home at work")
    told = move(world, world.home(HOME), url, code=IllegalTransition.exit_code)
    assert "is at work on it" in told
    assert "stop every runner there first" in told
    assert "is at work on it" in move(world, url, world.home("back"), code=IllegalTransition.exit_code)

    idle.send_signal(signal.SIGTERM)
    world.wait(idle, "two")
    world.url, world.variables = own, {"WAKE2VEC_DB": postgres.new_database()}
    move(world, world.home(HOME), world.variables["WAKE2VEC_DB"])
    assert world.run(HOME, told=PACE) == 0, world.output(HOME)[-3000:]
    assert_whole(world, home=HOME)
