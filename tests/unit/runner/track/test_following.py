"""The process that tells trackers begins with a job that names one, and ends with the daemon."""

from __future__ import annotations

import sys

import pytest

from runner.queue import jobs, ledger
from runner.queue.database import open_queue
from runner.settings import read_settings
from runner.track import following
from runner.track.following import Following
from runner.track.replay import folder
from tests.unit.runner.conftest import CORPUS, job_spec
from wake2vec.contract.tables import TrackTable

pytest.importorskip("tensorboard")


@pytest.fixture
def settings(tmp_path):
    return read_settings(tmp_path / "home", None, {})


@pytest.fixture
def queue(settings):
    queue = open_queue(settings.database)
    yield queue
    queue.close()


def train(queue, steps):
    lines = [{"kind": "step", "step": step, "loss": 1 / step} for step in steps]
    ledger.import_ledger(queue, "a", lines, 1.0, from_start=False)


def a_job(queue, *to):
    spec = job_spec("a").model_copy(update={"track": TrackTable(to=list(to))})
    jobs.add_job(queue, spec, [CORPUS], "a", 1.0)


def test_what_was_trained_until_the_end_is_told(settings, queue, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    a_job(queue, "tensorboard")
    monkeypatch.setattr(following, "LEAVING", ((300.0, "too slow"),))

    with Following(settings, pytest.fail):
        train(queue, [1, 2, 3])

    curves = EventAccumulator(str(folder(settings) / "tensorboard" / "a")).Reload()
    assert [one.step for one in curves.Scalars("train/loss")] == [1, 2, 3]


def test_no_process_is_begun_for_jobs_that_name_no_tracker(settings, queue, monkeypatch):
    a_job(queue)
    monkeypatch.setattr(following.subprocess, "Popen", lambda *_, **__: pytest.fail("begun"))

    with Following(settings, pytest.fail):
        pass


def test_a_library_that_hangs_keeps_no_session_from_its_end(settings, queue, monkeypatch):
    a_job(queue, "tensorboard")
    said = []
    hang = "import sys, time; print('begun', flush=True); time.sleep(600)"
    monkeypatch.setattr(following, "python", lambda *_: [sys.executable, "-c", hang])
    monkeypatch.setattr(following, "LEAVING", ((0.1, "the last steps"), (0.1, "is left")))
    monkeypatch.setattr(following, "PAUSE_SECONDS", 0.0)

    with Following(settings, said.append) as one:
        while not said:
            one._stop.wait(0.01)

    assert [line for line in said if line != "begun"] == ["the last steps", "is left"]
    assert one._child.returncode < 0


def test_a_process_that_died_is_said_and_where_it_says_why(settings, queue, monkeypatch):
    a_job(queue, "tensorboard")
    said = []
    monkeypatch.setattr(following, "python", lambda *_: [sys.executable, "-c", "import nothing_of_that_name"])
    monkeypatch.setattr(following, "PAUSE_SECONDS", 0.0)

    with Following(settings, said.append) as one:
        while not said:
            one._stop.wait(0.01)

    assert "trackers are not told now: their process has ended; " in said[0]
    assert "nothing_of_that_name" in (folder(settings) / "telling.log").read_text()
