"""Two homes on one queue, with real daemons and trainers, while hosts and the server go away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import QueueUnavailable
from runner.queue import attempts
from runner.states import Outcome
from tests.faults.world import World, expected_weights, fake_spec, wait_until
from tests.postgres_server import PASSWORD, PostgresServer

PACE = {"seconds_per_step": 0.02, "save_every": 5}
HOMES = ("one", "two")


@pytest.fixture
def world(tmp_path: Path, postgres: PostgresServer) -> Iterator[World]:
    world = World(tmp_path, queue_url=postgres.new_database())
    yield world
    if postgres.process is None:
        postgres.start()
    world.close()


def runs_of(world: World, names: list[str]) -> dict[str, list[Outcome | None]]:
    with world.queue("one") as queue:
        return {name: [one.outcome for one in attempts.list_attempts(queue, name)] for name in names}


def assert_all_whole(world: World, names: list[str]) -> None:
    """Each job ended once, in one home or the other, with the bits of a run that nothing disturbed."""
    for name in names:
        assert str(world.job(name, "one").state) == "succeeded", "".join(world.output(home)[-3000:] for home in HOMES)
        assert world.metrics(name, "one") == [(step, 1 / step) for step in range(1, 61)]
        finals = [world.weights(name, home) for home in HOMES if world.run_dir(name, home).final.is_dir()]
        assert set(finals) == {expected_weights(f"print-{name}", 60)}
        assert runs_of(world, [name])[name].count(Outcome.COMPLETED) == 1


def wait_for(world: World, daemons: dict[str, subprocess.Popen[bytes]]) -> None:
    for home, daemon in daemons.items():
        assert world.wait(daemon, home) == 0, world.output(home)[-3000:]


def ends_on_the_other_host(world: World, names: list[str], second: subprocess.Popen[bytes]) -> None:
    wait_until(
        lambda: all(str(world.job(name, "one").state) == "succeeded" for name in names),
        what="the end on the other host",
    )
    second.send_signal(signal.SIGTERM)
    world.wait(second, "two")
    assert_all_whole(world, names)


def test_two_hosts_share_the_jobs_while_the_server_goes_away_and_comes_back(
    world: World, postgres: PostgresServer
) -> None:
    names = [f"job{number}" for number in range(4)]
    for name in names:
        world.add(fake_spec(name), home="one")
    slow = PACE | {"seconds_per_step": 0.1}
    daemons = {home: world.start(home, told=slow, environment={"AS_HOST": home}) for home in HOMES}
    wait_until(lambda: all(world.trainer(home) for home in HOMES), what="a trainer in each home")

    postgres.stop()
    wait_until(lambda: all("claims wait" in world.output(home) for home in HOMES), what="the reason")
    postgres.start()

    wait_for(world, daemons)
    assert_all_whole(world, names)
    assert all("started on" in world.output(home) for home in HOMES)
    assert not any(PASSWORD in world.output(home) for home in HOMES)


def test_a_host_that_dies_is_a_lost_session_and_the_other_one_ends_its_job(world: World) -> None:
    world.add(fake_spec(), home="one")
    first = world.start("one", told=PACE | {"seconds_per_step": 0.2})
    wait_until(lambda: world.durable_step("a", "one") >= 5, what="a durable step")
    second = world.start("two", until_empty=False, told=PACE, environment={"AS_HOST": "two"})

    first.kill()
    first.wait()
    world.kill_trainer("one")

    ends_on_the_other_host(world, ["a"], second)
    assert runs_of(world, ["a"])["a"][0] is Outcome.LOST


@pytest.mark.parametrize("place", ["dispatch.claimed", "launcher.started", "sync.committed", "sync.done"])
def test_a_host_that_dies_in_the_midst_of_a_change_keeps_nobody_from_its_job(world: World, place: str) -> None:
    world.add(fake_spec(), home="one")
    first = world.start("one", told=PACE, environment={"WAKE2VEC_FAILPOINTS": f"{place}=kill"})
    assert world.wait(first, "one") == -signal.SIGKILL, world.output("one")[-3000:]
    world.kill_trainer("one")

    ends_on_the_other_host(
        world, ["a"], world.start("two", until_empty=False, told=PACE, environment={"AS_HOST": "two"})
    )


def test_hosts_whose_clocks_are_an_hour_apart_share_the_jobs_and_take_over_from_one_another(world: World) -> None:
    names = [f"job{number}" for number in range(4)]
    for name in names:
        world.add(fake_spec(name), home="one")
    ahead = {"AS_HOST": "two", "CLOCK_AHEAD": "3600"}
    first = world.start("one", told=PACE | {"fail_at": 7, "once": True})
    second = world.start("two", until_empty=False, told=PACE, environment=ahead)
    wait_until(lambda: all(world.trainer(home) for home in HOMES), what="a trainer in each home")
    first.kill()
    first.wait()
    world.kill_trainer("one")

    ends_on_the_other_host(world, names, second)
    assert any(Outcome.LOST in ended for ended in runs_of(world, names).values())


def test_a_runner_that_is_stopped_while_the_server_is_away_saves_first(world: World, postgres: PostgresServer) -> None:
    world.add(fake_spec(), home="one")
    daemon = world.start("one", told=PACE | {"seconds_per_step": 0.1, "save_every": 1000})
    wait_until(lambda: world.step("a", "one") >= 3, what="a step")
    postgres.stop()
    daemon.send_signal(signal.SIGTERM)

    assert world.wait(daemon, "one") == QueueUnavailable.exit_code
    assert "is saved on this machine; the next start goes on from there" in world.output("one")
    assert world.trainer("one") is None
    postgres.start()

    wait_for(world, {"one": world.start("one", told=PACE)})
    assert_all_whole(world, ["a"])


def test_the_command_line_names_the_server_and_never_the_password(world: World, postgres: PostgresServer) -> None:
    command = [str(Path(sys.executable).parent / "wake2vec-runner"), "--home", str(world.home("one"))]
    environment = os.environ | world.variables
    postgres.stop()
    for words in (["status", "--once"], ["hold", "a"], ["start", "--until-empty"], ["list"]):
        done = subprocess.run([*command, *words], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == QueueUnavailable.exit_code, done.stderr
        assert done.stderr.startswith("error: postgresql+psycopg://***@127.0.0.1")
        assert done.stderr.count("\n") == 1
        assert PASSWORD not in done.stderr + done.stdout
