from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wake2vec.errors import GpuBusy
from wake2vec.lock import hold_lock, read_lock


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
        "import sys, time; from pathlib import Path; from wake2vec.lock import hold_lock\n"
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
