from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from runner.commands.control import run
from runner.errors import IllegalTransition, UnknownJob
from runner.queue import attempts, jobs
from runner.queue.database import open_queue
from runner.settings import read_settings
from runner.states import State, Wish
from tests.unit.runner.conftest import CORPUS, job_spec

HOLDER = """
import sys, time
from pathlib import Path
from wake2vec.contract.lock import hold_lock
import os
with hold_lock(Path(sys.argv[1]), {"pid": os.getpid(), "attempt": 1, "job": sys.argv[2]}):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def settings(tmp_path):
    settings = read_settings(tmp_path, None, {})
    queue = open_queue(settings.database)
    for name in "ab":
        jobs.add_job(queue, job_spec(name), [CORPUS], name, 1.0)
    queue.close()
    return settings


@pytest.fixture
def running(settings):
    """Job `a` with an open attempt."""
    queue = open_queue(settings.database)
    session = attempts.open_session(queue, machine="m", platform="plain", gpu="", started_at=1.0, now=1.0)
    attempts.claim(queue, "a", session=session.id, gpu=0, first_step=0, now=2.0)
    queue.close()
    return settings


def _job(settings, name="a"):
    queue = open_queue(settings.database)
    try:
        return jobs.get_job(queue, name)
    finally:
        queue.close()


def test_waiting_jobs_are_held_released_cancelled_and_retried_at_once(settings, capsys):
    for verb, state in (("hold", "held"), ("release", "queued"), ("cancel", "cancelled"), ("retry", "queued")):
        run(settings, verb, ["a", "b"], as_json=False)

        assert {_job(settings, name).state for name in "ab"} == {State(state)}
        assert f"a: {state}" in capsys.readouterr().out


def test_a_running_job_gets_a_wish_and_no_other_state(running, capsys):
    run(running, "cancel", ["a"], as_json=False)

    job = _job(running)
    assert (job.state, job.wish, job.end_now) == (State.RUNNING, Wish.CANCEL, False)
    assert "cancel takes effect when a runner is at work again (none is now)" in capsys.readouterr().out


def test_one_unknown_name_does_not_keep_the_others_from_being_held(settings):
    with pytest.raises(UnknownJob, match="nix: there is no such job; known are a, b"):
        run(settings, "hold", ["nix", "b"], as_json=False)

    assert _job(settings, "b").state is State.HELD


def test_what_the_state_does_not_allow_is_refused_with_what_it_allows(settings):
    with pytest.raises(IllegalTransition, match="a queued job cannot be asked to release"):
        run(settings, "release", ["a"], as_json=False)


def test_json_shows_state_and_wish(running, capsys):
    run(running, "hold", ["a", "b"], as_json=True)

    assert json.loads(capsys.readouterr().out)["jobs"] == [
        {"name": "a", "state": "running", "wish": "hold"},
        {"name": "b", "state": "held", "wish": None},
    ]


def test_kill_ends_the_trainer_without_a_daemon_and_leaves_others_alone(running):
    def start(lock, job):
        command = [sys.executable, "-c", HOLDER, str(running.locks / lock), job]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        return process

    victim, bystander = start("gpu0.lock", "a"), start("gpu1.lock", "b")
    try:
        run(running, "kill", ["a"], as_json=False)

        assert victim.wait(30) == -signal.SIGKILL
        assert bystander.poll() is None
        job = _job(running)
        assert (job.wish, job.end_now) == (Wish.HOLD, True)
    finally:
        for process in (victim, bystander):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()


def test_kill_of_a_job_that_does_not_run_is_refused(settings):
    with pytest.raises(IllegalTransition, match="is queued, nothing of it runs; hold or cancel it instead"):
        run(settings, "kill", ["a"], as_json=False)
    run(settings, "cancel", ["a"], as_json=False)
    with pytest.raises(IllegalTransition, match=r"is cancelled, nothing of it runs$"):
        run(settings, "kill", ["a"], as_json=False)
