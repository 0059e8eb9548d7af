"""G1, G10: a disk that is full or broken, at one write or for a while, costs time and nothing else."""

import pytest

from runner.errors import HomeUnusable
from runner.machine.home import check_home
from tests.faults.world import assert_whole, fake_spec, wait_until
from wake2vec.contract.failpoints import VARIABLE

PACE = {"seconds_per_step": 0.01, "save_every": 5}


@pytest.mark.parametrize(
    "failures",
    [
        "checkpoint.manifest=ENOSPC:1+",
        "checkpoint.begin=EIO:1+",
        "sync.publish=ENOSPC:1+",
        "database.commit=ENOSPC:30+",
    ],
)
def test_a_disk_that_stays_full_holds_the_job_up_until_there_is_room(world, failures):
    world.numbers["sync_seconds"] = 0.2
    world.add(fake_spec(runner={"max_attempts": 1000}))
    daemon = world.start(told=PACE, environment={VARIABLE: failures})
    # a queue that takes no rows has no events to tell of
    wait_until(lambda: len(world.events()) > 4 or "trouble: " in world.output() or daemon.poll() is not None)
    daemon.kill()
    daemon.wait()

    assert world.run(told=PACE) == 0

    assert_whole(world)


def test_a_full_disk_is_named_with_what_to_do_and_counts_against_nobody(world):
    world.numbers["backoff_first_seconds"] = 600.0
    world.numbers["backoff_last_seconds"] = 600.0
    world.add(fake_spec(runner={"max_attempts": 1}))
    daemon = world.start(told=PACE, environment={VARIABLE: "checkpoint.begin=ENOSPC:1+"})
    wait_until(lambda: world.job().reason.startswith("the disk is full"), what="the reason")
    daemon.terminate()
    daemon.wait()

    job = world.job()
    assert (str(job.state), job.stalls) == ("queued", 0)
    assert "No space left on device" in job.reason
    assert job.remedy.startswith("make room on the disk of")


def test_a_home_that_cannot_be_written_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")

    with pytest.raises(HomeUnusable, match="cannot be written"):
        check_home(file / "home", allow_network=False)


def test_a_store_that_cannot_be_written_ends_the_start_with_its_place(world):
    world.add(fake_spec())
    world.store.write_text("a file where the store should be")

    assert world.run() == 11

    assert str(world.store) in world.output()
    assert world.trainer() is None
    assert str(world.job().state) == "queued"
