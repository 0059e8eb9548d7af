from __future__ import annotations

import json

import pytest

from runner.commands.change import extend, set_values
from runner.errors import RunnerError
from runner.queue import attempts, checkpoints, jobs
from runner.queue.database import open_queue
from runner.settings import read_settings
from tests.unit.runner.conftest import CORPUS, job_spec


@pytest.fixture
def settings(tmp_path):
    """Job `a` of 500 steps, saved to step 120."""
    settings = read_settings(tmp_path, None, {})
    queue = open_queue(settings.database)
    jobs.add_job(queue, job_spec("a"), [CORPUS], "a", 1.0)
    checkpoints.mark_saved(queue, "a", 120, manifest_sha256="0", size=1, now=1.0)
    queue.close()
    return settings


@pytest.fixture
def running(settings):
    queue = open_queue(settings.database)
    session = attempts.open_session(queue, machine="m", platform="plain", gpu="", started_at=1.0, now=1.0)
    attempts.claim(queue, "a", session=session.id, gpu=0, first_step=0, now=2.0)
    queue.close()
    return settings


def _job(settings):
    queue = open_queue(settings.database)
    try:
        return jobs.get_job(queue, "a")
    finally:
        queue.close()


def test_values_are_read_as_in_a_job_file(settings, capsys):
    set_values(
        settings, "a", ["checkpoint.every_steps=50", 'evaluate.prompt="so long"', "train.layers=lean"], as_json=False
    )

    spec = _job(settings).spec
    assert spec.train is not None
    assert (spec.checkpoint.every_steps, spec.evaluate.prompt, spec.train.layers) == (50, "so long", "lean")
    assert capsys.readouterr().out.startswith("a: checkpoint.every_steps = 50, ")


@pytest.mark.parametrize(
    "pair", ["train.lr=1e-4", "checkpoint.every_steps=0", "no.such=1", "checkpoint.every_steps", "=3"]
)
def test_one_bad_pair_keeps_all_of_them_from_being_set(settings, pair):
    with pytest.raises(RunnerError):
        set_values(settings, "a", ["checkpoint.every_steps=50", pair], as_json=False)

    assert _job(settings).spec.checkpoint.every_steps == 200


def test_a_resting_job_is_stretched_from_where_it_stands(settings, capsys):
    extend(settings, "a", 900, as_json=True)

    job = _job(settings)
    assert job.steps == 900
    assert job.spec.train is not None
    assert [(one.from_step, one.steps) for one in job.spec.train.extended] == [(120, 900)]
    assert json.loads(capsys.readouterr().out)["steps"] == 900
    extend(settings, "a", 1000, as_json=False)
    assert capsys.readouterr().out.endswith("from step 120 on; next: wake2vec-runner start\n")


def test_a_job_at_work_keeps_the_schedule_that_its_trainer_follows(running, capsys):
    extend(running, "a", 900, as_json=False)

    job = _job(running)
    assert job.spec.train is not None
    assert [(one.from_step, one.steps) for one in job.spec.train.extended] == [(500, 900)]
    assert "from its next attempt on" in capsys.readouterr().out


def test_fewer_steps_are_refused(settings):
    with pytest.raises(RunnerError, match="has 500 steps; extend to more than that"):
        extend(settings, "a", 500, as_json=False)
