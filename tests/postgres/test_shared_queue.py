"""One queue of several homes, on a real PostgreSQL server: who takes what, and what becomes of a home that is gone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from runner.errors import IllegalTransition, RunnerError
from runner.queue import attempts, checkpoints, jobs, sharing
from runner.queue.database import Queue, open_queue
from runner.queue.tables import homes
from runner.queue.view import see
from runner.screen.database import read_database
from runner.settings import Server
from runner.states import Outcome, State
from tests.postgres_server import PostgresServer
from tests.simulated import Clock, Home
from tests.unit.runner.conftest import CORPUS, job_spec

LEASE = 100.0


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


def opened(url: str, home: str) -> Queue:
    queue = open_queue(Server(url=url, home=home))
    sharing.enter(queue, "1", LEASE)
    return queue


def add(queue: Queue, *names: str) -> None:
    """Jobs whose texts are in the store."""
    for name in names:
        jobs.add_job(queue, job_spec(name), [CORPUS], f"print-{name}", 1.0)
        checkpoints.set_log_state(queue, name, 1.0, created_at=1.0)


def living(queue: Queue) -> list[str]:
    with queue.read() as connection:
        return list(connection.scalars(select(homes.c.name).where(homes.c.seen_at > sharing.CLOCK - LEASE)))


def take(queue: Queue, count: int = 1, **more: object) -> list[str]:
    return sharing.take(queue, count, 2.0, living=living(queue), longest_wait=1800.0, **more)  # type: ignore[arg-type]


def start(queue: Queue, name: str) -> attempts.Attempt:
    session = attempts.open_session(queue, machine=queue.home, platform="plain", gpu="", started_at=1.0, now=1.0)
    return attempts.claim(queue, name, session=session.id, gpu=0, first_step=0, now=3.0)


def vanish(queue: Queue, home: str) -> None:
    with queue.write() as connection:
        connection.exec_driver_sql(f"UPDATE homes SET seen_at = seen_at - 1000 WHERE name = '{home}'")


def test_homes_that_look_at_the_same_moment_never_take_the_same_job(url: str) -> None:
    with opened(url, "queued-here") as first:
        add(first, *(f"job{number:03d}" for number in range(60)))
    found: dict[str, list[str]] = {}

    def work(home: str) -> None:
        with opened(url, home) as queue:
            found[home] = []
            while names := take(queue, 2):
                for name in names:
                    assert see(queue).by_name[name].state is State.QUEUED
                found[home] += names

    threads = [threading.Thread(target=work, args=(f"home{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    names = [name for taken in found.values() for name in taken]
    assert len(names) == len(set(names)) == 60


def test_jobs_are_taken_in_their_order_and_a_job_behind_another_waits_for_it(url: str) -> None:
    with opened(url, "a") as here, opened(url, "b") as there:
        add(here, "p1", "other")
        p2 = job_spec("p2", phase="p2", after="p1", rows="best", lora={}, runner={"priority": 5})
        jobs.add_job(here, p2, [CORPUS], "p2", 1.0)
        checkpoints.set_log_state(here, "p2", 1.0, created_at=1.0)

        assert take(there, 5) == ["p1", "other"]


def test_a_job_whose_texts_are_in_one_home_alone_starts_there(url: str) -> None:
    with opened(url, "a") as here, opened(url, "b") as there:
        jobs.add_job(here, job_spec("new"), [CORPUS], "print", 1.0)

        assert take(there) == []
        assert take(here) == ["new"]


def test_a_job_that_another_home_is_about_to_start_is_not_claimed(url: str) -> None:
    with opened(url, "a") as here, opened(url, "b") as there:
        add(here, "job")
        assert take(there) == ["job"]

        assert take(here) == []
        with pytest.raises(IllegalTransition, match="another home has taken it"):
            start(here, "job")
        assert start(there, "job").job == "job"


def test_a_home_whose_lease_is_in_the_store_keeps_its_job_until_it_is_gone(url: str) -> None:
    with opened(url, "a") as here, opened(url, "b") as there:
        add(here, "job")
        checkpoints.set_log_state(here, "job", 2.0, epoch=3)
        assert take(there) == []

        vanish(there, "a")

        assert take(there) == ["job"]


def test_two_hosts_have_a_card_0_each_and_one_host_has_one(url: str) -> None:
    with opened(url, "a") as here, opened(url, "b") as there:
        add(here, "one", "two", "three")
        assert (take(here), take(there), take(here)) == (["one"], ["two"], ["three"])
        start(here, "one")
        start(there, "two")

        with pytest.raises(IllegalTransition, match="live attempt"):
            start(here, "three")
        assert [one.job for one in see(here).attempts] == ["one"]
        assert [one.job for one in see(there).attempts] == ["two"]


def test_numbers_of_attempts_are_above_those_of_other_lives(url: str) -> None:
    with opened(url, "a") as here:
        add(here, "one", "two")
        take(here, 2)
        session = attempts.open_session(here, machine="a", platform="plain", gpu="", started_at=1.0, now=1.0)
        first = attempts.claim(here, "one", session=session.id, gpu=0, first_step=0, now=1.0, above=41)
        second = attempts.claim(here, "two", session=session.id, gpu=1, first_step=0, now=1.0)

        assert (first.id, second.id) == (42, 43)


def test_another_version_at_work_is_refused_until_it_has_left(url: str) -> None:
    with opened(url, "a") as here, open_queue(Server(url=url, home="b")) as there:
        with pytest.raises(RunnerError, match=r"a is at work on this queue with wake2vec-runner 1, and this is 2"):
            sharing.enter(there, "2", LEASE)
        sharing.leave(here)

        sharing.enter(there, "2", LEASE)


@pytest.fixture
def hosts(tmp_path: Path, url: str) -> Iterator[tuple[Home, Home]]:
    """Two hosts with one card each, and a store that both reach."""
    clock = Clock()
    first, second = (
        Home.new(tmp_path / name, tmp_path / "store", clock, queue_url=url) for name in ("first", "second")
    )
    yield first, second
    for one in (first, second):
        one.queue.close()


def test_what_a_lost_host_ran_goes_on_from_the_store_on_another_one(hosts: tuple[Home, Home]) -> None:
    first, second = hosts
    first.add(job_spec("a", steps=60, checkpoint={"every_steps": 20}))
    first.until(lambda: first.state() == "running")
    first.train(20)
    first.until(lambda: first.durable() == 20)
    for _ in range(150):  # both are at work, longer than a lease lasts
        first.tick()
        second.rounds()
    assert second.trainers.living == {}  # it is the first one's

    second.until(lambda: bool(second.trainers.living), rounds=300)  # the lease in the store has to lapse too

    assert second.outcomes()[0] == "lost"
    assert second.trainer.step == 20
    second.train(40)
    second.until(lambda: second.state() == "succeeded")
    first.rounds(2)  # it is back, and finds the job gone on
    assert first.daemon.sight.view.attempts == []


def test_a_server_that_was_away_makes_nobody_dead(url: str) -> None:
    with opened(url, "a") as here, opened(url, "b"):
        watch = sharing.Watch(silent_seconds=LEASE)
        assert watch.living(here, 0.0) == ["a", "b"]
        assert watch.living(here, 900.0) == ["a", "b"]  # nobody could be heard between the two
        for at in range(910, 1000, 10):
            assert watch.living(here, float(at)) == ["a", "b"]
        with here.write() as connection:
            sharing.beat(connection, "a")

        assert watch.living(here, 1001.0) == ["a"]


def test_results_that_a_lost_host_never_sent_are_made_again(url: str) -> None:
    with opened(url, "a") as gone, opened(url, "b") as here:
        add(gone, "job")
        take(gone)
        attempt = start(gone, "job")
        attempts.close_attempt(
            gone, attempt, attempts.Verdict(change=None), 4.0, outcome=Outcome.COMPLETED, last_step=9, kept_step=9
        )
        assert sharing.left_behind(here, living(here)) == ([], [])

        vanish(here, "a")

        assert sharing.left_behind(here, living(here)) == ([], ["job"])


def test_two_homes_share_the_work_and_each_sees_where_the_other_is(hosts: tuple[Home, Home]) -> None:
    first, second = hosts
    for name in ("a", "b", "c"):
        first.add(job_spec(name, steps=20, checkpoint={"every_steps": 20}))
    for _ in range(60):
        first.clock.monotonic += 1.0
        for one in (first, second):
            one.tick()
            one.sync()
    assert [len(one.trainers.living) for one in (first, second)] == [1, 1]
    there = second.trainer.job
    assert read_database(first.daemon.settings.database).elsewhere == {there: "second"}

    for one in (first, second):
        one.train(20)
    first.until(lambda: first.state(there) == "running", rounds=1)
    for _ in range(120):
        first.clock.monotonic += 1.0
        for one in (first, second):
            one.tick()
            one.sync()
            if one.trainers.living:
                one.train(20)
    assert {job.state for job in jobs.list_jobs(first.queue)} == {State.SUCCEEDED}
    assert sorted(one.job for name in "abc" for one in attempts.list_attempts(first.queue, name)) == ["a", "b", "c"]
