"""What the ledger says of a job is told once, and what a tracker missed is told later."""

from __future__ import annotations

import threading

import pytest

from runner.commands import track
from runner.errors import TrackerBusy
from runner.queue import jobs, ledger
from runner.queue.database import open_queue
from runner.settings import read_settings
from runner.states import Change
from runner.track import replay, telling
from runner.track.curves import Reached
from runner.track.telling import AGAIN_SECONDS, Telling
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
    teller = Telling(settings, pytest.fail)

    take_steps(queue, [1, 2, 3])
    teller.look(queue, 0.0)
    take_steps(queue, [2, 3, 4])
    teller.look(queue, 0.0)

    ((job, name),) = kept
    assert (job, name) == ("a", "tensorboard")
    told = kept[job, name].steps
    assert [step for step, what in told if what.startswith("train")] == [1, 2, 3, 4]
    assert [step for step, what in told if what.startswith("eval")] == [3, 4]


def test_a_tracker_that_fails_is_said_once_and_told_the_rest_later(home, monkeypatch):
    settings, queue = home
    said, kept = [], Kept(fail=True)
    monkeypatch.setattr(replay, "open_tracker", lambda name, job, into: kept)
    teller = Telling(settings, said.append)
    take_steps(queue, [1])

    teller.look(queue, 0.0)
    assert kept.closed  # what it holds is read back before it is told more
    kept.fail = False
    teller.look(queue, AGAIN_SECONDS - 1)
    assert kept.steps == []
    kept.fail = True
    teller.look(queue, AGAIN_SECONDS)
    kept.fail = False
    teller.look(queue, 2 * AGAIN_SECONDS)

    assert [step for step, _ in kept.steps] == [1, 1]
    failed, well = said
    assert "a: tensorboard does not take what it is told: the network is down; training goes on" in failed
    assert "wake2vec-runner track a --to tensorboard" in failed
    assert "is told again" in well


def test_a_password_in_what_a_library_says_is_not_shown(home, monkeypatch):
    settings, queue = home
    said = []

    def refuse(name, job, into):
        raise ConnectionError("API request to https://me:secret@host/api\n  failed")

    monkeypatch.setattr(replay, "open_tracker", refuse)
    take_steps(queue, [1])
    Telling(settings, said.append).look(queue, 0.0)

    (line,) = said
    assert "https://***@host/api failed" in line
    assert "secret" not in line


def test_a_job_that_is_over_is_let_go_and_told_again_when_it_goes_on(home, monkeypatch):
    """What is open is a run that others see as running."""
    settings, queue = home
    kept = []

    def opened(name, job, into):
        kept.append(Kept())
        return kept[-1]

    monkeypatch.setattr(replay, "open_tracker", opened)
    teller = Telling(settings, pytest.fail)
    take_steps(queue, [1, 2])
    for change in (Change.CLAIM, Change.SUCCEED):
        jobs.change_state(queue, "a", change, 2.0)

    teller.look(queue, 0.0)
    teller.look(queue, 1.0)
    assert [one.closed for one in kept] == [True]

    jobs.change_state(queue, "a", Change.EXTEND, 3.0)
    teller.look(queue, 2.0)
    assert [one.closed for one in kept] == [True, False]


def test_what_came_last_is_told_and_what_was_opened_is_closed(home, monkeypatch):
    settings, queue = home
    kept = Kept()
    monkeypatch.setattr(replay, "open_tracker", lambda name, job, into: kept)
    monkeypatch.setattr(telling, "PAUSE_SECONDS", 0.0)
    stop = threading.Event()
    stop.wait = lambda seconds: take_steps(queue, [1, 2]) or True

    Telling(settings, pytest.fail).go_on(stop)

    assert [step for step, _ in kept.steps] == [1, 2, 2]
    assert kept.closed


def test_what_start_tells_nobody_else_tells_at_the_same_time(home, monkeypatch):
    settings, queue = home
    monkeypatch.setattr(replay, "open_tracker", lambda name, job, into: Kept())
    teller = Telling(settings, pytest.fail)
    take_steps(queue, [1])
    teller.look(queue, 0.0)

    with pytest.raises(TrackerBusy, match="by another process"):
        track.run(settings, ["a"], "tensorboard", None)


def test_start_waits_for_a_person_who_tells_and_goes_on_from_there(home, monkeypatch):
    settings, queue = home
    kept = Kept()
    monkeypatch.setattr(replay, "open_tracker", lambda name, job, into: kept)
    teller = Telling(settings, pytest.fail)
    take_steps(queue, [1])

    with replay.told(settings, "a", "tensorboard", settings.home):
        teller.look(queue, 0.0)
        assert kept.steps == []
    teller.look(queue, 0.0)

    assert [step for step, _ in kept.steps] == [1, 1]


def test_a_tracker_that_failed_is_free_for_the_command(home, monkeypatch):
    settings, queue = home
    monkeypatch.setattr(replay, "open_tracker", lambda name, job, into: Kept(fail=True))
    teller = Telling(settings, lambda text: None)
    take_steps(queue, [1])
    teller.look(queue, 0.0)

    with replay.told(settings, "a", "tensorboard", settings.home):
        pass
