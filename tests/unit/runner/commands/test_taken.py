"""A name that the store holds is told when a job is queued, with both ways out; one that cannot be asked, not."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.commands.enqueue import Asked, run
from runner.errors import JobExists
from runner.queue import jobs
from runner.queue.database import open_queue
from runner.settings import Settings, read_settings
from runner.store.open import open_store
from runner.store.records import Genesis
from runner.store.root import add_job, open_root
from tests.unit.runner.folders import write_jobs


def home(tmp_path: Path, name: str, store: str = "") -> Settings:
    return read_settings(tmp_path / name, store or f"dir:{tmp_path / 'store'}", {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs").mkdir()
    return write_jobs(tmp_path / "jobs")


def keep_in_store(settings: Settings) -> None:
    """As the sync loop does: every queued job gets its log."""
    root = open_root(open_store(settings.store_url, settings.home), holder="first")
    queue = open_queue(settings.database)
    for job in jobs.list_jobs(queue):
        add_job(root, job.name, Genesis(fingerprint=job.fingerprint, job=job.spec.model_dump(mode="json")))
    queue.close()


def enqueue(settings: Settings, folder: Path, *names: str, again: bool = False) -> list[str]:
    run(settings, [folder / f"{name}.toml" for name in names or ("a_p1",)], Asked(again=again), as_json=False)
    queue = open_queue(settings.database)
    try:
        return [job.name for job in jobs.list_jobs(queue)]
    finally:
        queue.close()


def change(folder: Path, old: str, new: str) -> None:
    (folder / "a_p1.toml").write_text((folder / "a_p1.toml").read_text().replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lr = 1e-3", "lr = 4e-3", "train.lr is 0.001 there, 0.004 here"),
        ("steps = 60", "steps = 90", "train.steps is 60 there, 90 here"),
        ("seq_len = 64", "seq_len = 32", "data.seq_len is 64 there, 32 here"),
    ],
)
def test_another_job_under_a_stored_name_is_refused_with_both_ways_out(
    tmp_path: Path, folder: Path, old: str, new: str, said: str
) -> None:
    enqueue(home(tmp_path, "first"), folder)
    keep_in_store(home(tmp_path, "first"))
    change(folder, old, new)

    with pytest.raises(JobExists) as told:
        enqueue(home(tmp_path, "second"), folder)

    assert said in str(told.value)
    for way in ("--again, as a_p1-2", "extend a_p1 STEPS", "set a_p1 KEY=VALUE", str(tmp_path / "store")):
        assert way in str(told.value)
    assert enqueue(home(tmp_path, "second"), folder, again=True) == ["a_p1-2"]


def test_other_texts_under_a_stored_name_are_another_job(tmp_path: Path, folder: Path) -> None:
    enqueue(home(tmp_path, "first"), folder)
    keep_in_store(home(tmp_path, "first"))
    (folder / "words.txt").write_text("riverrun\nadam\n")

    with pytest.raises(JobExists, match="on other texts or another model"):
        enqueue(home(tmp_path, "second"), folder)


def test_again_passes_over_every_name_that_the_store_holds(tmp_path: Path, folder: Path) -> None:
    first = home(tmp_path, "first")
    for again in (False, True):
        enqueue(first, folder, "a_p1", "a_p2", again=again)
    keep_in_store(first)

    assert enqueue(home(tmp_path, "second"), folder, "a_p1", "a_p2", again=True) == ["a_p1-3", "a_p2-3"]


def test_the_same_job_is_taken_and_said_to_go_on(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture) -> None:
    enqueue(home(tmp_path, "first"), folder)
    keep_in_store(home(tmp_path, "first"))
    change(folder, "every_steps = 20", "every_steps = 10")  # cadence is no other job

    assert enqueue(home(tmp_path, "second"), folder) == ["a_p1"]
    assert "holds this very job: `start` goes on" in capsys.readouterr().out


def test_a_name_whose_folder_was_deleted_by_hand_is_free(tmp_path: Path, folder: Path) -> None:
    enqueue(home(tmp_path, "first"), folder)
    keep_in_store(home(tmp_path, "first"))
    for path in sorted((tmp_path / "store" / "jobs" / "a_p1").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    change(folder, "lr = 1e-3", "lr = 4e-3")

    assert enqueue(home(tmp_path, "second"), folder) == ["a_p1"]


def test_a_store_that_cannot_be_asked_holds_nothing_up_and_is_not_made(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "log").write_text("no folder")
    broken = home(tmp_path, "first", f"dir:{tmp_path / 'log' / 'below'}")

    assert enqueue(broken, folder) == ["a_p1"]
    assert enqueue(home(tmp_path, "second"), folder) == ["a_p1"]
    assert not (tmp_path / "store").exists()
