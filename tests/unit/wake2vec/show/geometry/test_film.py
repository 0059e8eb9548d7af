"""The drift film: frames that outlive their checkpoints, on a plane that stays, in a page that fetches nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from wake2vec.contract.rundir import RunDir
from wake2vec.show.geometry.film import add_frame, put_back, read_film, write_film
from wake2vec.show.geometry.matrix import InMemory

RANDOM = np.random.default_rng(5)
BASE = RANDOM.standard_normal((200, 8)) * np.array([9.0, 5, 1, 1, 1, 1, 1, 1])
ROWS = RANDOM.standard_normal((30, 8))
WORDS = [f"word{n}" for n in range(29)] + ["</script><b>"]


def film(run: RunDir) -> dict[str, object]:
    path = write_film(run, "a title", read_film(run))
    assert path is not None
    found = re.search(r"const film = (.*);\n", path.read_text("utf-8"))
    assert found
    shown: dict[str, object] = json.loads(found[1])
    return shown


def steps_of(run: RunDir) -> list[int]:
    kept = read_film(run)
    return sorted(int(step) for step in kept["frames"]) if kept else []


def test_frames_lie_on_the_two_widest_axes_of_the_base(tmp_path: Path) -> None:
    run = RunDir(root=tmp_path)

    add_frame(run, 0, InMemory(ROWS), InMemory(BASE), WORDS)

    axes = np.linalg.svd(BASE - BASE.mean(0), full_matrices=False)[2][:2]
    expected = (ROWS - BASE.mean(0)) @ axes.T
    shown = np.array(film(run)["frames"])[0]
    for axis in range(2):
        sign = np.sign(shown[:, axis] @ expected[:, axis])
        assert shown[:, axis] * sign == pytest.approx(expected[:, axis], abs=0.02)


def test_frames_stay_when_more_are_added_and_come_in_order(tmp_path: Path) -> None:
    run = RunDir(root=tmp_path)
    for step in (200, 0, 1000):
        add_frame(run, step, InMemory(ROWS + step / 1000), InMemory(BASE), WORDS)

    shown = film(run)

    assert shown["steps"] == [0, 200, 1000]
    assert steps_of(run) == [0, 200, 1000]
    assert shown["words"] == WORDS


def test_a_word_cannot_end_the_script(tmp_path: Path) -> None:
    run = RunDir(root=tmp_path)
    add_frame(run, 0, InMemory(ROWS), InMemory(BASE), WORDS)

    path = write_film(run, "</script>", read_film(run))

    assert path is not None
    text = path.read_text("utf-8")
    assert text.count("</script>") == 1
    assert "http" not in text.replace("http-equiv", "")


def test_a_film_of_other_rows_begins_anew(tmp_path: Path) -> None:
    run = RunDir(root=tmp_path)
    add_frame(run, 0, InMemory(ROWS), InMemory(BASE), WORDS)

    add_frame(run, 5, InMemory(ROWS[:, :4]), InMemory(BASE[:, :4]), WORDS)

    assert steps_of(run) == [5]


def test_no_frames_give_no_film(tmp_path: Path) -> None:
    assert write_film(RunDir(root=tmp_path), "t", read_film(RunDir(root=tmp_path))) is None


def test_a_film_that_came_joins_the_one_that_is_here_up_to_a_step(tmp_path: Path) -> None:
    here, there = RunDir(root=tmp_path / "here"), RunDir(root=tmp_path / "there")
    for run, steps in ((here, (200, 300)), (there, (0, 100, 200))):
        for step in steps:
            add_frame(run, step, InMemory(ROWS + step / 1000), InMemory(BASE), WORDS)

    put_back(here, read_film(there), 200)

    assert steps_of(here) == [0, 100, 200]
    put_back(here, None, 100)
    assert steps_of(here) == [0, 100]
    put_back(empty := RunDir(root=tmp_path / "empty"), read_film(there), 150)
    assert steps_of(empty) == [0, 100]
