"""A PostgreSQL server for the tests that need one: `make test-postgres` says that they shall run."""

import os

import pytest

from tests.postgres_server import ENABLED, running


@pytest.fixture(scope="session")
def postgres():
    if not os.environ.get(ENABLED):
        pytest.skip("needs a PostgreSQL server, which `make test-postgres` starts")
    with running() as server:
        yield server
