from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.commands.log import run
from runner.errors import RunnerError, UnknownJob
from runner.machine.joblog import open_log
from runner.queue import attempts, jobs
from runner.queue.database import open_queue
from runner.queue.ledger import import_ledger
from runner.settings import read_settings
from runner.states import Change, Outcome, Verdict
from tests.simulated import open_attempts
from tests.unit.runner.conftest import CORPUS, job_spec
from wake2vec.contract.rundir import RunDir


@pytest.fixture
def settings(tmp_path):
    """Job `a` with one attempt that printed a line and made two steps."""
    settings = read_settings(tmp_path, None, {})
    queue = open_queue(settings.database)
    jobs.add_job(queue, job_spec("a"), [CORPUS], "a", 1.0)
    session = attempts.open_session(queue, machine="m", platform="plain", gpu="", started_at=1.0, now=1.0)
    attempts.claim(queue, "a", session=session.id, gpu=0, first_step=0, now=2.0)
    lines = [{"kind": "step", "step": step, "loss": 1.0} for step in (1, 2)]
    import_ledger(queue, "a", lines, 3.0, from_start=True)
    queue.close()
    log = RunDir(root=settings.runs / "a").log
    log.parent.mkdir(parents=True)
    with open_log(log, 1, 2.0) as file:
        file.write(b"loading the model\n")
    return settings


def _run(settings, name="a", *, follow=False, attempt=None, count=40, as_json=False):
    run(settings, name, follow=follow, attempt=attempt, count=count, as_json=as_json)


def test_an_attempt_its_output_and_its_steps_are_shown(settings, capsys):
    _run(settings)

    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("attempt 1 at ")
    assert said[1:] == ["  loading the model", "  step 1  loss 1.000", "  step 2  loss 1.000"]


def test_json_has_job_attempt_and_step_on_each_line(settings, capsys):
    _run(settings, count=1, as_json=True)

    line = json.loads(capsys.readouterr().out)
    assert line == {"job": "a", "attempt": 1, "step": 2, "kind": "step", "text": "step 2  loss 1.000"}


def test_an_attempt_that_never_was_is_refused(settings):
    with pytest.raises(RunnerError, match="a: has no attempt 9; it has 1"):
        _run(settings, attempt=9)


def test_an_unknown_job_and_an_empty_home_are_refused(settings, tmp_path):
    with pytest.raises(UnknownJob):
        _run(settings, "nix")
    with pytest.raises(UnknownJob, match="nothing was ever queued"):
        _run(read_settings(tmp_path / "none", None, {}))
    assert not (tmp_path / "none").exists()


def test_following_tells_each_line_once_and_ends_with_the_job(settings):
    command = [str(Path(sys.executable).parent / "wake2vec-runner"), "--home", str(settings.home), "log", "a", "-f"]
    follower = subprocess.Popen([*command, "-n", "1"], stdout=subprocess.PIPE, text=True)
    first = follower.stdout.readline()  # it has looked once; what comes now is new to it
    queue = open_queue(settings.database)
    (attempt,) = open_attempts(queue)
    rows = [{"kind": "step", "step": step, "loss": 1.0} for step in (1, 2, 3)]
    import_ledger(queue, "a", rows, 3.0, from_start=True)
    verdict = Verdict(change=Change.FAIL, reason="the end")
    attempts.close_attempt(queue, attempt, verdict, time.time(), outcome=Outcome.FAILED, last_step=3, kept_step=0)
    queue.close()

    said = [first, *follower.communicate()[0].splitlines()]

    assert follower.returncode == 0
    assert [line.split()[1] for line in said if line.startswith("  step")] == ["2", "3"]
    assert said[-1].startswith("attempt 1 failed at step 3")
