"""What all tests share: one thread a process, and a PostgreSQL server where `make test-postgres` asks for one."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: threads of tiny models wait for each other

import pytest
from hypothesis import settings

from tests.postgres_server import ENABLED, running

# a case is not wrong because the machine was busy: no test asserts a time
settings.register_profile("ours", deadline=None)
settings.load_profile("ours")


def pytest_collection_finish():
    """What is imported by now stays: no search for garbage, as after each out-of-memory, goes through it again."""
    gc.freeze()


@pytest.fixture(scope="session")
def postgres():
    if not os.environ.get(ENABLED):
        pytest.skip("needs a PostgreSQL server, which `make test-postgres` starts")
    with running() as server:
        yield server
