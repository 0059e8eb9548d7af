"""The home's lock, a bad home, and the exit code."""

import os
from shutil import copytree

import pytest

from runner.daemon.ending import left_to_you
from runner.daemon.safety import safe_report
from runner.errors import DaemonRunning, DatabaseCorrupt, HomeUnusable, NeedsYou
from runner.machine.home import check_home, forget_copied_name, only_daemon, open_or_set_aside
from runner.queue import attempts, jobs
from runner.settings import Settings, holder_of
from runner.states import Change, Outcome, Verdict, Wish
from tests.unit.runner.conftest import CORPUS, job_spec


def test_a_home_has_one_daemon_and_the_second_is_told_its_pid(tmp_path):
    with only_daemon(tmp_path), pytest.raises(DaemonRunning, match=f"pid {os.getpid()}"), only_daemon(tmp_path):
        pass


def test_the_lock_is_free_again_after_the_daemon(tmp_path):
    for _ in range(2):
        with only_daemon(tmp_path):
            pass


def test_a_network_home_is_refused_unless_allowed(tmp_path):
    mounts = f"drive {tmp_path} fuse.drive rw 0 0\n"

    with pytest.raises(HomeUnusable, match=r"lies on a fuse\.drive file system.*--allow-network-home"):
        check_home(tmp_path, allow_network=False, mounts=mounts)
    check_home(tmp_path, allow_network=True, mounts=mounts)


def test_a_home_keeps_its_name_in_the_store(tmp_path):
    assert holder_of(tmp_path) == holder_of(tmp_path)
    (tmp_path / "holder").unlink()
    assert holder_of(tmp_path)


def test_a_corrupt_database_is_kept_and_a_new_one_begun(tmp_path):
    settings = Settings(home=tmp_path, store_url="dir:none")
    settings.database.write_bytes(b"rubbish" * 999)
    said = []

    queue = open_or_set_aside(settings, said.append)

    assert jobs.list_jobs(queue) == []
    assert "it is kept as runner.db.corrupt-" in said[0]
    queue.close()


def test_a_copy_of_a_home_is_another_home_and_one_that_was_renamed_is_not(tmp_path):
    home, copy, renamed = tmp_path / "home", tmp_path / "copy", tmp_path / "renamed"
    name = holder_of(home)
    copytree(home, copy)
    home.rename(renamed)

    assert holder_of(copy) == name  # who only looks changes nothing
    with only_daemon(copy), only_daemon(renamed):
        assert holder_of(copy) == holder_of(copy) != name
        assert holder_of(renamed) == name


def test_where_inodes_change_with_each_mount_a_home_keeps_its_name(tmp_path):
    name = holder_of(tmp_path)
    (tmp_path / "holder").write_text(f"{name}\n1\n")

    forget_copied_name(tmp_path, mounts=f"drive {tmp_path} fuse.drive rw 0 0\n")
    assert holder_of(tmp_path) == name
    forget_copied_name(tmp_path, mounts="")
    assert holder_of(tmp_path) != name


def test_a_home_of_0_1_0_keeps_its_name_and_one_that_a_full_disk_left_empty_gets_one(tmp_path):
    (tmp_path / "holder").write_text("laptop-0011aabb\n")
    assert holder_of(tmp_path) == holder_of(tmp_path) == "laptop-0011aabb"

    (tmp_path / "holder").write_text("")
    assert holder_of(tmp_path) == holder_of(tmp_path) != ""


def test_a_database_on_a_disk_that_is_full_is_not_taken_for_a_corrupt_one(tmp_path):
    settings = Settings(home=tmp_path, store_url="dir:none")
    queue = open_or_set_aside(settings, pytest.fail)
    jobs.add_job(queue, job_spec("a"), [CORPUS], "print", 1.0)
    queue.close()
    obstacle = settings.database.with_name("runner.db-journal")
    obstacle.mkdir()  # the first look at a file fails as on a full disk: "disk I/O error"

    with pytest.raises(HomeUnusable, match="see whether the disk is full") as raised:
        open_or_set_aside(settings, pytest.fail)
    assert not isinstance(raised.value, DatabaseCorrupt)

    obstacle.rmdir()
    queue = open_or_set_aside(settings, pytest.fail)
    assert [job.name for job in jobs.list_jobs(queue)] == ["a"]
    queue.close()


def test_the_end_of_a_run_without_jobs_says_what_to_do(queue, tmp_path):
    told = safe_report(queue, Settings(home=tmp_path, store_url="dir:none"), {})

    assert told == ["nothing is queued; next: wake2vec-runner enqueue FILE..."]


def test_a_run_ends_well_only_when_no_job_is_left_to_a_person(queue):
    def add(name, **more):
        return jobs.add_job(queue, job_spec(name, **more), [CORPUS], f"print-{name}", 1.0)

    assert left_to_you(queue) == 0
    add("a")
    jobs.set_wish(queue, "a", Wish.CANCEL, 2.0)
    assert left_to_you(queue) == 0
    add("blocked", phase="p2", after="a")
    add("failed")
    jobs.change_state(queue, "failed", Change.FAIL, 3.0, reason="no")
    add("held")
    jobs.set_wish(queue, "held", Wish.HOLD, 2.0)

    end = left_to_you(queue)
    assert isinstance(end, NeedsYou)
    assert end.exit_code == 22
    assert str(end) == "only jobs that need you are left: blocked, failed, held"
    jobs.set_wish(queue, "failed", Wish.CANCEL, 4.0)
    assert str(left_to_you(queue)) == "only jobs that need you are left: blocked, held"


def test_the_end_names_for_each_job_what_helps(queue, tmp_path):
    settings = Settings(home=tmp_path, store_url="dir:none")
    session = attempts.open_session(queue, machine="m", platform="plain", gpu="", started_at=1.0, now=1.0)
    for name, place, change, remedy in (
        ("model", "identity", Change.HOLD, "put that model back and release the job"),
        ("words", "nothing", Change.FAIL, "look at the word list"),
        ("text", "inputs", Change.FAIL, "give a longer text"),
        ("crash", "training", Change.FAIL, ""),
    ):
        jobs.add_job(queue, job_spec(name), [CORPUS], f"print-{name}", 1.0)
        attempt = attempts.claim(queue, name, session=session.id, gpu=0, first_step=0, now=2.0)
        verdict = Verdict(change=change, reason="it is not what it was", remedy=remedy)
        attempts.close_attempt(
            queue, attempt, verdict, 3.0, outcome=Outcome.FAILED, last_step=0, place=place, cause="", remedy=remedy,
            kept_step=0,
        )  # fmt: skip
    entry = (job_spec("mine"), [CORPUS], "print-mine")
    jobs.add_jobs(queue, [entry], 1.0, paths={"mine": tmp_path / "a file.toml"})
    attempt = attempts.claim(queue, "mine", session=session.id, gpu=0, first_step=0, now=2.0)
    attempts.close_attempt(
        queue, attempt, Verdict(change=Change.FAIL, reason="", remedy=""), 3.0, outcome=Outcome.FAILED, last_step=0,
        place="nothing", cause="", remedy="", kept_step=0,
    )  # fmt: skip
    jobs.add_job(queue, job_spec("p2", phase="p2", after="crash"), [CORPUS], "print-p2", 1.0)

    told = safe_report(queue, settings, {})

    assert [line.rpartition("; ")[2] for line in told] == [
        "`wake2vec-runner release model`",
        "`wake2vec-runner enqueue words.toml --again`",
        "`wake2vec-runner enqueue text.toml --again`",
        "`wake2vec-runner retry crash`",
        f"`wake2vec-runner enqueue '{tmp_path}/a file.toml' --again`",
        "`wake2vec-runner retry crash`, or cancel p2",
    ]
    assert "put that model back" in told[0]
