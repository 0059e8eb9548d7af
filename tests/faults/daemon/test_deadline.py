"""G1: a known end of the session is an orderly one."""

import time

from runner.daemon.main import Wanted, run_daemon
from tests.faults.world import fake_spec, wait_until
from wake2vec.contract.files import read_json


def test_a_session_that_is_too_short_starts_nothing_and_says_so(world):
    world.add(fake_spec())

    code = run_daemon(world.settings(), Wanted(max_hours=1.5 / 3600), say=lambda line: None)

    assert code == 0
    assert world.job().reason.startswith("the session ends in")
    assert world.trainer() is None


def test_the_trainer_is_told_when_the_session_ends(world):
    world.add(fake_spec(steps=5))
    before = time.time()

    code = run_daemon(world.settings(), Wanted(until_empty=True, max_hours=1), say=lambda line: None)

    assert code == 0
    stop_by = wait_until(lambda: read_json(world.run_dir().order))["stop_by"]
    assert before + 3600 <= stop_by <= time.time() + 3600
