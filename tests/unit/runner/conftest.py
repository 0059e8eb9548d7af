"""A queue in a temporary home, and job specs to fill it with."""

import os

import pytest

from runner.queue.database import open_queue
from runner.settings import Server
from tests.postgres_server import ENABLED
from wake2vec.contract.order import InputFile
from wake2vec.contract.spec import JOB_SPEC

CORPUS = InputFile(role="corpus", name="text.txt", sha256="c" * 64, size=10)


def job_spec(name="a", *, steps=500, phase="p1", **extra):
    train = {"steps": steps, "lr": 1e-3} if isinstance(steps, int) else {"epochs": 2.0, "lr": 1e-3}
    table = {"name": name, "phase": phase, "model": {"base": "tiny"}, "data": {"corpus": "text.txt"}, "train": train}
    if phase == "p1":
        table["vocab"] = {"lexicon": "words.txt"}
    return JOB_SPEC.validate_python(table | extra)


@pytest.fixture(params=["sqlite", *(["postgresql"] if os.environ.get(ENABLED) else [])])
def queue(request, tmp_path):
    """The same tests for either kind of database."""
    place = tmp_path / "home" / "runner.db"
    if request.param == "postgresql":
        place = Server(url=request.getfixturevalue("postgres").new_database(), home="here")
    queue = open_queue(place)
    yield queue
    queue.close()


@pytest.fixture
def file_queue(tmp_path):
    """For what only a file can do."""
    queue = open_queue(tmp_path / "home" / "runner.db")
    yield queue
    queue.close()
