"""The world of a fault test, taken down afterwards whatever happened in it."""

import pytest

from tests.faults.world import World


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.close()
