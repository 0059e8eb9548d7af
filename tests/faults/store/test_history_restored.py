"""G1, G2, G3: a home is lost, the newest copy of its queue torn; the one before tells the past, the logs the rest."""

from __future__ import annotations

import gzip
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.queue import attempts, jobs
from runner.queue.changing import set_value
from runner.states import State, Wish
from runner.store.copies import Generation, list_generations
from runner.store.open import open_store
from runner.store.root import open_root
from tests.drive_server.server import DriveServer
from tests.faults.world import World, assert_whole, fake_spec, wait_until
from tests.simulated import open_attempts

SLOW = {"seconds_per_step": 0.2, "save_every": 2}  # lives that are cut
QUICK = {"seconds_per_step": 0.002, "save_every": 10}  # the one that ends the job


@dataclass(kw_only=True)
class Place:
    """A store, and how to reach the bytes behind its back."""

    world: World
    environment: dict[str, str]
    file_of: Callable[[str], Path]
    tear: Callable[[str], None]

    def copies(self) -> list[Generation]:
        store = open_store(self.world.url, self.world.root / "observer", environ=self.environment)
        return list_generations(open_root(store, holder="observer"))


@pytest.fixture(params=["dir", pytest.param("drive", marks=pytest.mark.sweep)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "dir":
        world = World(tmp_path)

        def tear(id: str) -> None:
            path = world.store / id
            path.write_bytes(path.read_bytes()[:-100])

        yield Place(world=world, environment={}, file_of=lambda id: world.store / id, tear=tear)
        world.close()
        return
    with DriveServer(tmp_path / "google") as server:
        world = World(tmp_path, url="drive:wake2vec")

        def tear(id: str) -> None:
            file = server.drive.files[id]
            file.path.write_bytes(file.path.read_bytes()[:-100])
            file.md5 = "0" * 32

        yield Place(
            world=world, environment=server.environ(), file_of=lambda id: server.drive.files[id].path, tear=tear
        )
        world.close()


def test_a_lost_home_with_a_torn_copy_goes_back_one_and_ends_in_the_same_bits(place: Place, tmp_path: Path) -> None:
    world = place.world
    world.add(fake_spec("a", steps=200))
    world.add(fake_spec("b"))
    with world.queue() as queue:
        jobs.set_wish(queue, "b", Wish.HOLD, 1.0)
        set_value(queue, "b", "runner.priority", 7, 1.0)
    first = world.start(environment=place.environment, told=SLOW)
    wait_until(lambda: world.durable_step() >= 2, what="a checkpoint in the store")
    first.send_signal(signal.SIGTERM)
    world.wait(first)
    good = place.copies()[-1]
    second = world.start(environment=place.environment, told=SLOW)
    wait_until(lambda: place.copies()[-1].number > good.number, what="a copy of the second daemon")
    kept = world.durable_step()
    wait_until(lambda: world.durable_step() > kept, what="a commit that no good copy knows")
    second.kill()
    second.wait()
    world.kill_trainer()
    shutil.rmtree(tmp_path / "home")
    for generation in place.copies():
        if generation.number > good.number:
            place.tear(generation.file.id)

    third = world.start("new", until_empty=False, environment=place.environment, told=QUICK)
    wait_until(lambda: world.output("new").count("a: succeeded") or third.poll() is not None, what="the end of the job")
    third.send_signal(signal.SIGTERM)
    world.wait(third, "new")

    assert_whole(world, "a", 200, "new", fingerprint="print-a")
    assert "is of no use, going back one" in world.output("new")
    assert f"came from database copy {good.number}" in world.output("new")
    assert (world.job("b", "new").state, world.job("b", "new").priority) == (State.HELD, 7)
    with world.queue("new") as queue:
        numbers = [one.id for one in attempts.list_attempts(queue, "a")]
        assert open_attempts(queue) == []
    assert numbers == [1, 3]  # the second is known from its commits alone
    (database,) = (gzip.decompress(place.file_of(good.file.id).read_bytes()),)
    assert b"refresh" not in database
    assert b"client_secret" not in database


def test_a_database_of_rubbish_comes_back_with_its_past(world: World) -> None:
    world.add(fake_spec(steps=60))
    daemon = world.start(told=SLOW)
    wait_until(lambda: world.durable_step() >= 2, what="a checkpoint in the store")
    daemon.send_signal(signal.SIGTERM)
    world.wait(daemon)
    for path in (world.root / "home").glob("runner.db*"):
        path.write_bytes(b"rubbish " * 1000)

    assert world.run(told=QUICK) == 0

    assert_whole(world, steps=60)
    with world.queue() as queue:
        assert [str(one.outcome) for one in attempts.list_attempts(queue, "a")] == ["yielded", "completed"]
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(next((world.root / "home").glob("runner.db.corrupt-*"))).execute("SELECT 1 FROM jobs")
