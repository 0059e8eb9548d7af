"""A job that another machine queued runs code that is not ours only where a person here allowed it."""

from __future__ import annotations

import pytest

from runner.states import Foreign
from tests.simulated import Clock, Home
from tests.unit.runner.conftest import job_spec
from wake2vec.contract.spec import JobSpec


def trusting(name: str = "a") -> JobSpec:
    spec = job_spec(name)
    assert spec.model
    return spec.model_copy(update={"model": spec.model.model_copy(update={"trust_remote_code": True})})


@pytest.fixture
def other(tmp_path):
    """A home that finds in the store what a home before it queued: a job with its model's own code, and one without."""
    clock = Clock()
    first = Home.new(tmp_path / "first", tmp_path / "store", clock)
    first.add(trusting())
    first.add(job_spec("plain"))
    first.rounds(3)
    assert first.trainer.job == "a"
    first.queue.close()
    home = Home.new(tmp_path / "other", tmp_path / "store", clock)
    home.daemon.take_over = True
    return home


def test_the_home_that_queued_it_runs_it(tmp_path):
    home = Home.new(tmp_path / "home", tmp_path / "store", Clock())
    home.add(trusting())
    home.rounds(3)

    assert home.state() == "running"
    home.kill_daemon()
    home.rounds(3)
    assert home.state() == "running"


def test_another_home_waits_for_a_person_and_trains_what_is_harmless(other):
    other.rounds()
    trouble = other.context.trouble_of("a")
    assert trouble is not None
    assert trouble.command == "wake2vec-runner start --allow remote-code"
    assert "code that comes with its model, and first queued it" in trouble.said
    other.rounds(10)
    assert (other.state(), other.state("plain")) == ("queued", "running")


def test_another_home_runs_it_once_it_is_allowed_there(other):
    other.daemon.allow = frozenset({Foreign.REMOTE_CODE})
    other.rounds(10)

    assert other.state() == "running"


def test_leave_for_one_kind_is_none_for_another(other):
    other.daemon.allow = frozenset({Foreign.COMMAND})
    other.rounds(10)

    assert other.state() == "queued"
