"""G4: one daemon a home, one writer a job."""

import signal

from runner.store.open import open_store
from runner.store.records import commits, is_done
from runner.store.root import jobs as entries_of
from runner.store.root import open_job, open_root
from tests.faults.world import PATIENCE_SECONDS, assert_whole, expected_weights, fake_spec, wait_until

PACE = {"seconds_per_step": 0.02, "save_every": 5}


def log_of(world, name="a"):
    store = open_store(f"dir:{world.store}", world.root)
    root = open_root(store, holder="reader")
    return open_job(root, entries_of(root.records)[name])


def test_a_second_daemon_in_a_home_is_refused_by_name(world):
    world.add(fake_spec(steps=400))
    first = world.start(told=PACE)
    wait_until(lambda: world.step() >= 2)

    assert world.run() == 10

    assert f"a daemon works here already (pid {first.pid})" in world.output()


def test_a_second_home_waits_for_the_first_and_takes_over_when_it_is_gone(world):
    world.add(fake_spec())
    first = world.start(told=PACE | {"seconds_per_step": 0.5})  # still at work when the second one has come up
    wait_until(lambda: world.durable_step() >= 5)
    second = world.start("other", told=PACE)
    wait_until(lambda: "is at work on this job" in problem(world, "other"), what="the reason")
    assert world.trainer("other") is None
    first.kill()
    first.wait()
    world.kill_trainer()

    assert second.wait(timeout=PATIENCE_SECONDS) == 0

    assert_whole(world, home="other")


def problem(world, home):
    from runner.errors import UnknownJob
    from runner.queue import checkpoints, jobs

    with world.queue(home) as queue:
        try:
            jobs.get_job(queue, "a")
        except UnknownJob:
            return ""
        return checkpoints.log_state(queue, "a").problem


def test_a_frozen_runner_that_wakes_finds_itself_fenced_and_uploads_nothing(world):
    world.add(fake_spec(steps=300, every=50))
    first = world.start(told=PACE)
    wait_until(lambda: world.durable_step() >= 5)
    first.send_signal(signal.SIGSTOP)  # its trainer goes on
    second = world.start("other", told=PACE | {"seconds_per_step": 0.005})
    wait_until(lambda: world.durable_step(home="other") >= 60, what="the take-over")
    holder = (world.root / "other" / "holder").read_text().split()[0]
    first.send_signal(signal.SIGCONT)

    assert second.wait(timeout=PATIENCE_SECONDS) == 0
    assert first.wait(timeout=PATIENCE_SECONDS) == 0

    records = log_of(world).records
    assert is_done(records)
    taken = next(record.seq for record in records if record.kind == "LEASE" and record.holder == holder)
    assert {record.holder for record in records if record.seq >= taken} == {holder}
    steps = [one.commit.step for one in commits(records)]
    assert steps == sorted(set(steps))
    assert world.weights(home="other") == expected_weights("print-a", 300)
    assert any("has taken the job over" in text for text in world.events("home"))
    assert str(world.job(home="home").state) == "succeeded"
    assert world.job(home="home").reason == "finished by another runner"


def test_a_clean_stop_hands_the_job_over_without_a_wait(world):
    world.numbers["lease_seconds"] = 600.0
    world.add(fake_spec())
    first = world.start(told=PACE)
    wait_until(lambda: world.step() >= 12)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=PATIENCE_SECONDS) == 130

    assert world.run("other", told=PACE) == 0

    assert_whole(world, home="other")
