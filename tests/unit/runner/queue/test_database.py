"""The queue's file: its owner's alone, and never torn from under whoever has it open."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

from runner.queue.database import open_queue
from runner.queue.ledger import add_event, list_events
from runner.queue.sqlite import copy_database

OPEN_AND_CLOSE = """
import sys
from pathlib import Path
from runner.queue.database import open_queue
open_queue(Path(sys.argv[1])).close()
"""


def elsewhere(path: Path) -> None:
    """What `enqueue`, `hold` or `status` do beside a daemon."""
    subprocess.run([sys.executable, "-c", OPEN_AND_CLOSE, str(path)], check=True)


def test_another_process_leaves_the_log_of_a_queue_that_is_open_here(tmp_path: Path) -> None:
    path = tmp_path / "runner.db"
    with open_queue(path) as queue:
        add_event(queue, 1.0, "first", "one")
        open_queue(path).close()  # a second part of the daemon, and its copies
        copy_database(path, tmp_path / "copy.db")

        elsewhere(path)

        assert path.with_name("runner.db-wal").exists()
        add_event(queue, 2.0, "second", "two")
        assert [event.text for event in list_events(queue)] == ["one", "two"]


def test_a_new_queue_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / "runner.db"
    with open_queue(path) as queue:
        add_event(queue, 1.0, "first", "one")

        files = [path, path.with_name("runner.db-wal"), path.with_name("runner.db-shm")]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
