from __future__ import annotations

import json

import pytest

from runner.commands.diff import decides, run
from runner.errors import UnknownJob
from runner.queue import jobs
from runner.queue.database import open_queue
from runner.settings import read_settings
from tests.unit.runner.conftest import CORPUS, job_spec
from tests.unit.runner.folders import write_jobs


@pytest.fixture
def settings(tmp_path):
    """Jobs `a` and `b`, which differ in their steps, and `c`, which differs from `a` in its plan alone."""
    settings = read_settings(tmp_path / "home", None, {})
    queue = open_queue(settings.database)
    jobs.add_job(queue, job_spec("a"), [CORPUS], "a", 1.0)
    jobs.add_job(queue, job_spec("b", steps=600), [CORPUS], "b", 1.0)
    jobs.add_job(
        queue,
        job_spec("c").model_copy(update={"train": job_spec("a").train.model_copy(update={"micro_batch": 2})}),
        [CORPUS],
        "c",
        1.0,
    )
    queue.close()
    return settings


def test_each_key_that_differs_is_shown_with_both_values(settings, capsys):
    assert run(settings, "a", "b", as_json=False) == 1

    assert "train.steps: 500 | 600\n" in capsys.readouterr().out


def test_what_never_changes_the_result_is_marked(settings, capsys):
    assert run(settings, "a", "c", as_json=True) == 1

    told = json.loads(capsys.readouterr().out)["differences"]
    assert [(one["key"], one["decides"]) for one in told] == [("name", False), ("train.micro_batch", False)]


def test_a_job_is_the_same_as_itself(settings, capsys):
    assert run(settings, "a", "a", as_json=False) == 0
    assert capsys.readouterr().out == "a and a are the same\n"


def test_a_job_file_can_be_compared_with_a_job(settings, tmp_path, capsys):
    folder = write_jobs(tmp_path)

    assert run(settings, "a", str(folder / "a_p1.toml"), as_json=False) == 1
    assert "corpus text.txt: " in capsys.readouterr().out


def test_an_unknown_job_is_named(settings):
    with pytest.raises(UnknownJob):
        run(settings, "a", "gone", as_json=False)


def test_what_a_job_stands_on_decides_its_result():
    assert decides("after")
    assert not decides("runner.priority")
