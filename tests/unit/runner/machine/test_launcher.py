"""Starting, finding and ending processes that stand in for trainers."""

import os
import signal
import subprocess
import sys
import time

import pytest

from runner.machine.launcher import Holder, Launcher, describe_exit, end_group, trainer_environment
from tests import zygote
from wake2vec.contract.rundir import RunDir

HOLD = """
import sys, time
from pathlib import Path
from wake2vec.contract.lock import hold_lock
with hold_lock(Path(sys.argv[1]), {"pid": __import__("os").getpid(), "attempt": 7, "job": "a"}):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path):
    run = RunDir(root=tmp_path / "run")
    run.root.mkdir()
    return run


def launcher(tmp_path, program):
    (tmp_path / "locks").mkdir(exist_ok=True)
    return Launcher([sys.executable, "-c", program, str(tmp_path / "locks" / "gpu0.lock")], tmp_path / "locks")


def until(condition):
    give_up = time.monotonic() + 240  # a busy machine takes seconds to start a process
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.01)
    return True


def test_a_trainer_lives_from_its_start_to_its_end_and_its_words_go_to_the_log(tmp_path, run):
    trainers = launcher(tmp_path, HOLD)
    trainers.start(run, 7, os.environ)
    assert trainers.is_alive(7, 0)
    assert until(lambda: trainers.holder(0) is not None)
    assert until(lambda: "held" in run.log.read_text())
    holder = trainers.holder(0)
    assert holder == Holder(pid=holder.pid, attempt=7, job="a")

    end_group(holder.pid, signal.SIGKILL)

    assert until(lambda: not trainers.is_alive(7, 0))
    assert trainers.exit_code(7) == -signal.SIGKILL
    trainers.forget(7)


def test_another_daemon_finds_a_trainer_that_it_did_not_start(tmp_path, run):
    first, second = launcher(tmp_path, HOLD), launcher(tmp_path, HOLD)
    pid = first.start(run, 7, os.environ)
    # the lock is held an instant before its content says by whom
    assert until(lambda: (holder := first.holder(0)) is not None and holder.pid == pid)

    assert second.is_alive(7, 0)
    assert not second.is_alive(8, 0)
    assert second.pid(7, 0) == pid
    assert second.exit_code(7) is None

    end_group(pid, signal.SIGKILL)
    assert until(lambda: not second.is_alive(7, 0))
    first.forget(7)


def test_a_trainer_is_out_of_reach_of_a_ctrl_c_at_the_daemon(tmp_path, run):
    trainers = launcher(tmp_path, HOLD)
    pid = trainers.start(run, 7, os.environ)

    assert os.getpgid(pid) == pid != os.getpgid(0)

    trainers.forget(7)


def test_workers_that_outlive_a_trainer_are_ended_with_it(tmp_path, run):
    program = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)"
    )
    trainers = launcher(tmp_path, program)
    trainers.start(run, 7, os.environ)
    assert until(lambda: trainers.exit_code(7) == 0)
    worker = int(run.log.read_text().split()[-1])

    trainers.forget(7)

    assert until(lambda: not is_running(worker))


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ending_a_group_that_is_gone_is_no_error():
    end_group(2**22 - 3, signal.SIGTERM)
    end_group(0, signal.SIGKILL)


def test_one_of_several_cards_is_all_that_a_trainer_sees():
    found = trainer_environment({"A": "1"}, [1], 2)

    assert found.pop("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    del found["OMP_NUM_THREADS"]
    assert found == {"A": "1", "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": "1"}
    assert trainer_environment({}, [0, 2], 4)["CUDA_VISIBLE_DEVICES"] == "0,2"
    assert "CUDA_VISIBLE_DEVICES" not in trainer_environment({}, [0], 1)


def test_trainers_beside_each_other_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 16)

    assert trainer_environment({}, [1], 4)["OMP_NUM_THREADS"] == "4"
    assert trainer_environment({}, [1], 32)["OMP_NUM_THREADS"] == "1"
    assert trainer_environment({"OMP_NUM_THREADS": "6"}, [1], 4)["OMP_NUM_THREADS"] == "6"
    assert "OMP_NUM_THREADS" not in trainer_environment({}, [0], 1)


@pytest.mark.parametrize(
    ("code", "words"),
    [(None, "is gone without a result"), (-9, "ended by SIGKILL"), (3, "exit code 3"), (-999, "exit code -999")],
)
def test_an_exit_is_told_in_words(code, words):
    assert words in describe_exit(code)


@pytest.fixture
def waiting(tmp_path, monkeypatch):
    """A launcher, and its trainer that waits: a fork of one that has imported everything."""
    monkeypatch.setattr("runner.machine.launcher.python", zygote.python)
    (tmp_path / "locks").mkdir(exist_ok=True)
    trainers = Launcher(None, tmp_path / "locks")
    trainers.warm(os.environ)
    return trainers, trainers._waiting[os.environ.get("CUDA_VISIBLE_DEVICES", "")]


def test_a_trainer_that_waits_becomes_the_next_attempt_and_its_words_go_to_the_log(waiting, run):
    run.order.write_text("{}")
    trainers, waits = waiting
    trainers.warm(os.environ)  # one is enough

    assert trainers.start(run, 3, os.environ) == waits.pid
    assert until(lambda: trainers.exit_code(3) is not None)

    said = run.log.read_text()
    assert said.startswith("== attempt 3, ")
    assert "was it written by another version" in said
    assert trainers.exit_code(3) == 1
    trainers.forget(3)


def test_where_the_one_that_waited_is_gone_an_attempt_starts_as_ever(waiting, run):
    trainers, waits = waiting
    end_group(waits.pid, signal.SIGKILL)
    waits.wait()

    assert trainers.start(run, 3, os.environ) != waits.pid
    assert until(lambda: trainers.exit_code(3) is not None)

    assert "error:" in run.log.read_text()
    trainers.forget(3)
    trainers.close()


def test_one_that_saw_another_card_is_not_taken(waiting, run):
    trainers, waits = waiting

    assert trainers.start(run, 3, dict(os.environ) | {"CUDA_VISIBLE_DEVICES": "7"}) != waits.pid
    trainers.forget(3)
    trainers.close()

    assert waits.returncode == -signal.SIGKILL


def test_one_that_waits_ends_with_its_daemon():
    daemon = (
        "import os, sys; from pathlib import Path; from runner.machine import launcher; from tests import zygote;"
        "launcher.python = zygote.python;"
        "trainers = launcher.Launcher(None, Path('.')); trainers.warm(os.environ);"
        "print(*(one.pid for one in trainers._waiting.values()), flush=True); os._exit(9)"
    )
    zygote.server(zygote.TRAINERS)
    said = subprocess.run(
        [sys.executable, "-c", daemon], cwd=zygote.ROOT, capture_output=True, text=True, check=False
    ).stdout

    assert until(lambda: not is_running(int(said)))
