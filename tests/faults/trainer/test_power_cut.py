"""G1, G2: a power cut takes back whatever was not fsynced; what was announced as saved or durable stays."""

import os
import random
from pathlib import Path
from typing import Any

from tests.faults import power
from tests.faults.apart import run_apart
from tests.faults.protocols.store import budget


def test_a_saved_checkpoint_survives_a_power_cut_and_the_job_ends_in_the_same_bits():
    figures = run_apart("power", "power_cuts_of_trainers", cuts=budget(100, 5), seed=3)

    assert (figures["unstartable"], figures["wrong"]) == (0, 0), figures


def test_what_a_store_on_a_folder_calls_durable_survives_a_power_cut():
    figures = run_apart("power", "power_cuts_of_stores", cuts=budget(75, 3), seed=3)

    assert (figures["unstartable"], figures["wrong"]) == (0, 0), figures


def test_the_forgetful_disk_forgets_what_was_not_synced_and_keeps_what_was(tmp_path: Path):
    found = run_apart("test_power_cut", "forget", folder=str(tmp_path), times=40)

    assert found == {"kept": 40, "old or new": 40, "renamed": True, "no folder": True, "torn": True}


def forget(folder: str, times: int) -> dict[str, Any]:
    """In a process without threads, since it forks: what became of synced and unsynced files after each power cut."""
    kept, whole, seen = 0, 0, set()
    for seed in range(times):
        root, shadow = Path(folder) / f"disk{seed}", Path(folder) / f"shadow{seed}"
        root.mkdir()
        (root / "old").write_text("old")
        power.remember(root, shadow)
        if (pid := os.fork()) == 0:
            _write_on(root, shadow)
        os.waitpid(pid, 0)
        power.lose_power(root, shadow, random.Random(seed))
        kept += (root / "kept").read_text() == "kept"
        whole += (root / "old").read_text() in ("old", "new")
        seen.add("renamed" if (root / "old").read_text() == "new" else "")
        seen.add("no folder" if not (root / "folder").exists() else "")
        torn = root / "folder" / "torn"
        seen.add("torn" if torn.exists() and torn.read_bytes() != b"x" * 100 else "")
    return {"kept": kept, "old or new": whole, **{one: one in seen for one in ("renamed", "no folder", "torn")}}


def _write_on(root: Path, shadow: Path) -> None:
    power.install(root, shadow)
    for name, text in (("kept", "kept"), ("new", "new")):
        with open(root / name, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    handle = os.open(root, os.O_RDONLY)
    os.fsync(handle)
    os.replace(root / "new", root / "old")
    (root / "folder").mkdir()
    (root / "folder" / "torn").write_bytes(b"x" * 100)
    os._exit(0)
