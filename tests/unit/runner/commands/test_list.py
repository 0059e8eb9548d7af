from __future__ import annotations

import json

import pytest

from runner.commands.list_ import STILL_MOVING, run
from runner.errors import UnknownJob
from runner.queue import jobs
from runner.queue.database import open_queue
from runner.settings import read_settings
from runner.states import State
from tests.unit.runner.conftest import CORPUS, job_spec


def _settings(tmp_path, **states):
    settings = read_settings(tmp_path / "home", None, {})
    queue = open_queue(settings.database)
    for name, state in states.items():
        jobs.add_job(queue, job_spec(name), [CORPUS], name, 1.0, state=state)
    queue.close()
    return settings


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ([State.SUCCEEDED, State.SUCCEEDED], 0),
        ([State.SUCCEEDED, State.QUEUED], STILL_MOVING),
        ([State.QUEUED, State.HELD], 22),
        ([State.HELD, State.FAILED], 1),
        ([State.CANCELLED, State.QUEUED], 1),
    ],
)
def test_the_exit_code_says_what_the_states_come_to(tmp_path, states, code, capsys):
    settings = _settings(tmp_path, **dict(zip("ab", states, strict=True)))

    assert run(settings, [], state=None, as_json=False) == code
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["a", states[0].value],
        ["b", states[1].value],
    ]


def test_names_and_states_choose(tmp_path, capsys):
    settings = _settings(tmp_path, a=State.SUCCEEDED, b=State.QUEUED, c=State.QUEUED)

    run(settings, ["a", "b"], state=State.QUEUED, as_json=True)

    assert [job["name"] for job in json.loads(capsys.readouterr().out)["jobs"]] == ["b"]
    with pytest.raises(UnknownJob, match="gone"):
        run(settings, ["gone"], state=None, as_json=False)


def test_a_home_without_a_queue_has_no_jobs(tmp_path, capsys):
    assert run(read_settings(tmp_path / "home", None, {}), [], state=None, as_json=False) == 0
    assert capsys.readouterr().out == ""
