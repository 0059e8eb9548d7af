from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wake2vec.contract.errors import GpuBusy
from wake2vec.contract.failpoints import VARIABLE
from wake2vec.contract.lock import hold_lock, read_lock


def test_a_held_lock_says_who_holds_it_and_refuses_a_second(tmp_path: Path) -> None:
    lock = tmp_path / "gpu0.lock"

    with hold_lock(lock, {"pid": 7}):
        assert read_lock(lock) == {"pid": 7}
        with pytest.raises(GpuBusy, match="'pid': 7"), hold_lock(lock, {}):
            pass

    assert read_lock(lock) is None


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    lock = tmp_path / "gpu0.lock"
    code = (
        "import sys, time; from pathlib import Path; from wake2vec.contract.lock import hold_lock\n"
        "with hold_lock(Path(sys.argv[1]), {'pid': 1}): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    assert read_lock(lock) == {"pid": 1}

    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()

    assert read_lock(lock) is None


def test_whoever_has_just_taken_the_lock_is_unknown_and_never_mistaken_for_its_last_holder(tmp_path: Path) -> None:
    lock, pause = tmp_path / "gpu0.lock", tmp_path / "pause"
    lock.write_text('{"pid": 1, "attempt": 1}')  # killed, its words stayed
    os.mkfifo(pause)
    code = (
        "import contextlib, sys; from pathlib import Path\n"
        "from wake2vec.contract.errors import GpuBusy\n"
        "from wake2vec.contract.lock import hold_lock\n"
        "while True:\n"
        "    with contextlib.suppress(GpuBusy), hold_lock(Path(sys.argv[1]), {'pid': 2}):\n"  # a look is in its way
        "        print('held', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)],
        env={**os.environ, VARIABLE: f"trace={pause}"},  # writing there waits for a reader, with the lock in hand
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        while (found := read_lock(lock)) is None:
            assert process.poll() is None
            time.sleep(0.01)
        assert found == {}

        pause.read_text()
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert read_lock(lock) == {"pid": 2}
    finally:
        process.kill()
        process.communicate()
