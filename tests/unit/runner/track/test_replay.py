"""What the ledger says of a job is told once, and a tracker that fails hinders nobody."""

from __future__ import annotations

import pytest

from runner.commands import track
from runner.errors import TrackerBusy
from runner.queue import jobs, ledger
from runner.queue.database import open_queue
from runner.settings import read_settings
from runner.track import replay
from runner.track.curves import Reached
from runner.track.replay import Following
from tests.unit.runner.conftest import CORPUS, job_spec
from wake2vec.contract.tables import TrackTable


class Kept:
    """A tracker that remembers, in place of one with a network."""

    def __init__(self, fail=False):
        self.steps, self.fail, self.closed = [], fail, False

    def reached(self):
        return Reached()

    def add(self, points):
        if self.fail:
            raise ConnectionError("the network is down")
        self.steps += [(point.step, sorted(point.figures)[0]) for point in points]

    def close(self):
        self.closed = True


@pytest.fixture
def home(tmp_path):
    settings = read_settings(tmp_path, None, {})
    queue = open_queue(settings.database)
    track = {"track": TrackTable(to=["tensorboard"])}
    jobs.add_job(queue, job_spec("a").model_copy(update=track), [CORPUS], "a", 1.0)
    jobs.add_job(queue, job_spec("b"), [CORPUS], "b", 1.0)
    yield settings, queue
    queue.close()


def take_steps(queue, steps):
    lines = [{"kind": "step", "step": step, "loss": 1 / step} for step in steps]
    ledger.import_ledger(
        queue, "a", [*lines, {"kind": "evaluation", "step": steps[-1], "loss": 1.0}], 1.0, from_start=False
    )


def test_each_step_is_told_once_although_a_cut_has_it_taken_again(home, monkeypatch):
    settings, queue = home
    kept = {}
    monkeypatch.setattr(replay, "open_tracker", lambda name, job, into: kept.setdefault((job, name), Kept()))
    following = Following(settings, pytest.fail)

    take_steps(queue, [1, 2, 3])
    following.look(queue)
    take_steps(queue, [2, 3, 4])
    following.look(queue)

    ((job, name),) = kept
    assert (job, name) == ("a", "tensorboard")
    told = kept[job, name].steps
    assert [step for step, what in told if what.startswith("train")] == [1, 2, 3, 4]
    assert [step for step, what in told if what.startswith("eval")] == [3, 4]


def test_a_tracker_that_fails_is_said_once_and_left_alone(home, monkeypatch):
    settings, queue = home
    said = []
    monkeypatch.setattr(replay, "open_tracker", lambda name, job, into: Kept(fail=True))
    following = Following(settings, said.append)
    take_steps(queue, [1])

    following.look(queue)
    following.look(queue)

    (line,) = said
    assert "a: tensorboard is not told any more: the network is down" in line
    assert "wake2vec-runner track a --to tensorboard" in line


def test_the_thread_tells_what_came_last_and_closes_what_it_opened(home, monkeypatch):
    settings, queue = home
    kept = Kept()
    monkeypatch.setattr(replay, "open_tracker", lambda name, job, into: kept)
    take_steps(queue, [1, 2])

    with Following(settings, pytest.fail):
        pass

    assert [step for step, _ in kept.steps] == [1, 2, 2]
    assert kept.closed


def test_what_start_tells_nobody_else_tells_at_the_same_time(home, monkeypatch):
    settings, queue = home
    monkeypatch.setattr(replay, "open_tracker", lambda name, job, into: Kept())
    following = Following(settings, pytest.fail)
    take_steps(queue, [1])
    following.look(queue)

    with pytest.raises(TrackerBusy, match="by another process"):
        track.run(settings, ["a"], "tensorboard", None)


def test_start_waits_for_a_person_who_tells_and_goes_on_from_there(home, monkeypatch):
    settings, queue = home
    kept = Kept()
    monkeypatch.setattr(replay, "open_tracker", lambda name, job, into: kept)
    following = Following(settings, pytest.fail)
    take_steps(queue, [1])

    with replay.told(settings, "a", "tensorboard", settings.home):
        following.look(queue)
        assert kept.steps == []
    following.look(queue)

    assert [step for step, _ in kept.steps] == [1, 1]


def test_a_tracker_that_failed_is_free_for_the_command(home, monkeypatch):
    settings, queue = home
    monkeypatch.setattr(replay, "open_tracker", lambda name, job, into: Kept(fail=True))
    following = Following(settings, lambda text: None)
    take_steps(queue, [1])
    following.look(queue)

    with replay.told(settings, "a", "tensorboard", settings.home):
        pass
