"""The home's lock, a bad home, and the exit code."""

import os

import pytest

from runner.daemon.main import exit_code
from runner.errors import DaemonRunning, HomeUnusable
from runner.machine.home import check_home, holder_of, only_daemon, open_or_set_aside
from runner.queue import jobs
from runner.settings import Settings
from runner.states import Change, Wish
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


def test_the_exit_code_tells_whether_a_job_failed_or_is_blocked(queue):
    def add(name, **more):
        return jobs.add_job(queue, job_spec(name, **more), [CORPUS], f"print-{name}", 1.0)

    add("a")
    jobs.set_wish(queue, "a", Wish.CANCEL, 2.0)
    assert exit_code(queue) == 0
    add("b", phase="p2", after="a")
    assert exit_code(queue) == 1
    jobs.set_wish(queue, "b", Wish.CANCEL, 2.0)
    add("c")
    jobs.change_state(queue, "c", Change.FAIL, 3.0, reason="no")
    assert exit_code(queue) == 1
