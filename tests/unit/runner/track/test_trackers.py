"""Every tracker that can be had without an account keeps each step once, whatever is cut."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from runner.errors import RunnerError
from runner.track.curves import Point, Reached
from runner.track.trackers import TRACKERS, open_tracker

pytest.importorskip("tensorboard")
pytest.importorskip("trackio")

ROWS = [
    Point(step=0, figures={"eval/loss": 9.0}),
    Point(step=1, figures={"train/loss": 8.5, "train/lr": 0.1}),
    Point(step=2, figures={"train/loss": 8.0, "train/lr": 0.1}),
]


@pytest.fixture(params=["tensorboard", "trackio"])
def name(request, tmp_path, monkeypatch):
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    return request.param


def test_a_tracker_knows_again_what_it_was_told(name, tmp_path):
    first = open_tracker(name, "a", tmp_path)
    assert first.reached() == Reached()
    first.add(ROWS)
    first.close()

    again = open_tracker(name, "a", tmp_path)
    other = open_tracker(name, "b", tmp_path)

    assert again.reached() == Reached(train=2, evaluation=0)
    assert other.reached() == Reached()
    again.close()
    other.close()


def test_event_files_hold_one_curve_over_sessions_and_survive_a_torn_end(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = open_tracker("tensorboard", "a", tmp_path)
    first.add(ROWS)
    first.close()
    (file,) = (tmp_path / "tensorboard" / "a").iterdir()
    file.write_bytes(file.read_bytes()[:-7])  # killed while it wrote step 2

    second = open_tracker("tensorboard", "a", tmp_path)
    assert second.reached() == Reached(train=1, evaluation=0)
    second.add(ROWS[2:])
    second.close()

    curves = EventAccumulator(str(tmp_path / "tensorboard" / "a")).Reload()
    assert [(one.step, one.value) for one in curves.Scalars("train/loss")] == [(1, 8.5), (2, 8.0)]


@pytest.mark.parametrize("name", list(TRACKERS))
def test_a_package_that_is_not_here_is_named_with_its_remedy(name, tmp_path, monkeypatch):
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(RunnerError, match=f"pip install {name}"):
        open_tracker(name, "a", Path(tmp_path))


def test_what_shows_its_curves_is_a_command_that_can_be_copied(tmp_path: Path) -> None:
    tracker = open_tracker("tensorboard", "a", tmp_path / "my runs")

    assert tracker.look_at == f"tensorboard --logdir '{tmp_path / 'my runs' / 'tensorboard'}'"
