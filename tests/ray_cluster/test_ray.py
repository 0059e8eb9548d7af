"""Trainers in a real Ray cluster of two hosts with a CPU each, while hosts and the daemon go away."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from runner.errors import ClusterLost
from runner.queue import attempts
from runner.states import Outcome
from tests.faults.protocols.ranks import PATIENCE_SECONDS
from tests.faults.world import World, expected_weights, fake_spec, wait_until
from tests.machine import Machine, job_file
from tests.ray_cluster.cluster import Hosts

ENABLED = "WAKE2VEC_TEST_RAY"
PACE = {"seconds_per_step": 0.05, "save_every": 5}
WORDS = ("--engine", "ray", "--address")


class RayWorld(World):
    """The command line instead of a driver: what is tested begins there."""

    def __init__(self, root: Path, address: str) -> None:
        super().__init__(root)
        self.address = address

    def start(self, home: str = "home", *, until_empty: bool = True, **_: Any) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).parent / "wake2vec-runner"), "--home", str(self.home(home))]
        command += ["--store", self.url, "start", *WORDS, self.address, *(["--until-empty"] * until_empty)]
        with open(self.root / home / "out.txt", "ab") as out:
            daemon = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        self.daemons.append(daemon)
        return daemon

    def run_command(self, *words: str) -> str:
        command = [str(Path(sys.executable).parent / "wake2vec-runner"), "--home", str(self.home()), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def status(self) -> str:
        return self.run_command("status", "--once")


@pytest.fixture(scope="module")
def running() -> Iterator[Hosts]:
    """The head that most tests share: it takes longest to begin."""
    if not os.environ.get(ENABLED):
        pytest.skip("needs a Ray cluster, which `make test-ray` starts")
    with closing(Hosts()) as hosts:
        yield hosts


@pytest.fixture
def cluster(running: Hosts) -> Iterator[Hosts]:
    """With hosts of its own for each test."""
    yield running
    running.lose_all()


@pytest.fixture
def world(tmp_path: Path, cluster: Hosts) -> Iterator[RayWorld]:
    world = RayWorld(tmp_path, cluster.address)
    yield world
    for daemon in world.daemons:
        daemon.kill()
        daemon.wait()


def runs_of(world: World, name: str) -> list[Outcome | None]:
    with world.queue() as queue:
        return [one.outcome for one in attempts.list_attempts(queue, name)]


def assert_whole(world: World, name: str) -> None:
    assert str(world.job(name).state) == "succeeded", world.output()[-3000:]
    assert world.metrics(name) == [(step, 1 / step) for step in range(1, 61)]
    assert world.weights(name) == expected_weights(f"print-{name}", 60)


def hosts(world: World, *names: str) -> set[int]:
    """The parents of the trainers: an actor each."""
    found = {json.loads(world.run_dir(name).heartbeat.read_text())["pid"] for name in names}
    return {int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]) for pid in found}


def test_jobs_run_on_the_hosts_of_a_cluster_and_a_lost_host_is_a_lost_session(world: RayWorld, cluster: Hosts) -> None:
    nodes = [cluster.add(num_cpus=1) for _ in range(2)]
    for name in ("a", "b"):
        world.add(fake_spec(name), told=PACE)
    daemon = world.start()
    wait_until(lambda: all(world.step(name) >= 8 for name in ("a", "b")), what="steps on both hosts")
    assert len(hosts(world, "a", "b")) == 2

    cluster.lose(nodes[0])

    wait_until(lambda: Outcome.LOST in runs_of(world, "a") + runs_of(world, "b"), what="the loss")
    assert world.wait(daemon) == 0, world.output()[-3000:]
    for name in ("a", "b"):
        assert_whole(world, name)
    assert "its host left the cluster" in world.output()


def test_a_daemon_that_died_finds_its_trainers_again(world: RayWorld, cluster: Hosts) -> None:
    cluster.add(num_cpus=1)
    world.add(fake_spec(), told=PACE)
    first = world.start()
    wait_until(lambda: world.step() >= 5, what="a step")
    first.kill()
    first.wait()

    assert world.wait(world.start()) == 0, world.output()[-3000:]
    assert_whole(world, "a")
    assert runs_of(world, "a") == [Outcome.COMPLETED]


def test_a_stop_has_the_trainer_save_on_its_host(world: RayWorld, cluster: Hosts) -> None:
    cluster.add(num_cpus=1, num_gpus=1)  # which Ray takes at its word
    world.add(fake_spec(steps=5000), told=PACE | {"save_every": 1000, "seconds_per_step": 0.1})
    daemon = world.start()
    wait_until(lambda: world.step() >= 5, what="a step")
    pid = json.loads(world.run_dir().heartbeat.read_text())["pid"]
    assert b"CUDA_VISIBLE_DEVICES=0" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    wait_until(lambda: "trained" in world.status(), what="the screen to see the trainer")
    assert "its trainer has ended" not in world.status()
    daemon.send_signal(signal.SIGTERM)
    world.wait(daemon)

    assert runs_of(world, "a") == [Outcome.YIELDED]
    assert world.durable_step() >= 5


def test_a_cluster_whose_head_is_gone_ends_the_daemon_and_a_new_one_goes_on(world: RayWorld) -> None:
    with closing(Hosts()) as cluster:
        cluster.add(num_cpus=1)
        world.address = cluster.address
        world.add(fake_spec(), told=PACE | {"seconds_per_step": 0.5})
        daemon = world.start()
        wait_until(lambda: world.durable_step() >= 5, what="a durable step")
        cluster.lose_head()
        assert world.wait(daemon) == ClusterLost.exit_code, world.output()[-3000:]

    told = world.output()
    assert "the head of the Ray cluster does not answer" in told
    assert "start it again" in told
    assert "is safe in the store" in told
    assert "Traceback" not in told
    with closing(Hosts(num_cpus=1)) as again:
        world.address = again.address
        assert world.wait(world.start()) == 0, world.output()[-3000:]
    assert_whole(world, "a")
    assert runs_of(world, "a")[0] is Outcome.LOST


@pytest.mark.timeout(1800)
def test_a_job_of_two_cards_trains_on_one_host_and_goes_on_there_on_another(tmp_path: Path, cluster: Hosts) -> None:
    """Its layers dealt out, by the real trainer; in the end the bits of one card."""
    path = job_file(
        tmp_path, "a", of="tiny_p1", train__steps=60, train__cards=2, train__spread="layers",
        train__reduction="fixed", checkpoint__every_steps=20, evaluate__every_steps=30, evaluate__samples=0,
    )  # fmt: skip
    uncut, machine = (
        Machine(home=tmp_path / name, store=tmp_path / f"{name}-store", settings="lease_seconds = 10\n")
        for name in ("uncut", "ray")
    )
    machine.run("enqueue", str(path))
    uncut.run("enqueue", str(path))
    uncut.run("set", "a", "train.cards=1", "train.spread=auto")
    uncut.finish(PATIENCE_SECONDS)

    cluster.add(num_cpus=1)  # has no room for it
    first = cluster.add(num_cpus=2)
    machine.start("--until-empty", *WORDS, cluster.address)
    machine.wait_for_step("a", 21, PATIENCE_SECONDS)
    assert "the layers are dealt out to 2 ranks: 1 + 1" in machine.run_dir("a").log.read_text()
    cluster.add(num_cpus=2)
    cluster.lose(first)
    machine.finish(PATIENCE_SECONDS)

    assert machine.outcome("a") == uncut.outcome("a")
    assert "its host left the cluster" in machine.start_log.read_text()


def test_a_job_that_the_cluster_has_no_room_for_waits_there_and_can_be_held(
    world: RayWorld, cluster: Hosts, request: pytest.FixtureRequest
) -> None:
    import ray

    cluster.add(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    request.addfinalizer(ray.shutdown)  # before the cluster's own end
    taken = ray.util.placement_group([{"CPU": 1}])
    ray.get(taken.ready())
    world.numbers |= {"hang_minutes": 0.02}
    world.add(fake_spec(), told=PACE)
    daemon = world.start(until_empty=False)
    wait_until(lambda: "started on" in world.output(), what="the attempt")
    time.sleep(3)  # longer than a trainer that has begun may be silent
    assert runs_of(world, "a") == [None]

    world.run_command("hold", "a")
    wait_until(lambda: str(world.job("a").state) == "held", what="the hold")
    assert runs_of(world, "a") != [Outcome.HUNG]
    ray.util.remove_placement_group(taken)
    world.run_command("release", "a")
    wait_until(lambda: str(world.job("a").state) == "succeeded", what="the end")
    daemon.send_signal(signal.SIGTERM)
    world.wait(daemon)
    assert_whole(world, "a")


def test_without_the_package_the_remedy_is_named(tmp_path: Path) -> None:
    world = World(tmp_path)
    script = """
import sys
sys.modules["ray"] = None
from runner.cli import main
main(["start", "--engine", "ray"])
"""
    environment = os.environ | {"WAKE2VEC_HOME": str(world.home()), "WAKE2VEC_STORE": world.url}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr == "error: --engine ray: needs a package; `pip install 'wake2vec-runner[ray]'`\n"


@pytest.mark.skipif(not os.environ.get(ENABLED), reason="needs Ray, which `make test-ray` installs")
def test_a_host_that_cannot_run_the_trainer_says_why(tmp_path: Path) -> None:
    from runner.machine.ray_launcher import Trainer

    code, refusal = Trainer(str(tmp_path), 1, None, "9.9").ended()
    assert code == 1
    assert refusal is not None
    assert "the daemon 9.9" in refusal[0]
    assert refusal[1] == "install the same version on every host"

    _, refusal = Trainer(str(tmp_path), 1, None, version("wake2vec-runner")).ended()
    assert refusal is not None
    assert f"does not see {tmp_path}" in refusal[0]


@pytest.mark.skipif(not os.environ.get(ENABLED), reason="needs Ray, which `make test-ray` installs")
@pytest.mark.parametrize("is_taken", [False, True])
def test_an_address_where_no_cluster_is_is_one_sentence(tmp_path: Path, is_taken: bool) -> None:
    """Nobody listens there, or another program does."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1] if is_taken else 1}"
        world = RayWorld(tmp_path, address)
        world.add(fake_spec())

        assert world.wait(world.start()) == 1
    assert f"error: --address {address}: no Ray cluster answers there" in world.output()
    assert "Traceback" not in world.output()
