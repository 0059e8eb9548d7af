"""The Drive store against the loopback Drive: the shared suite, and what only Drive does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.store.base import Store
from runner.store.drive import open_drive
from runner.store.drive_transfer import Throttle
from tests.drive_server.server import DriveServer
from tests.unit.runner.store.suite import Open, StoreSuite


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DriveServer]:
    with DriveServer(tmp_path / "google") as server:
        yield server


class TestDriveStore(StoreSuite):
    @pytest.fixture
    def open_store(self, server: DriveServer, tmp_path: Path) -> Open:
        homes = iter(range(1000))

        def fresh() -> Store:
            return open_drive("wake2vec", tmp_path / f"home-{next(homes)}", server.environ(), Throttle())

        return fresh

    @pytest.fixture
    def damage(self, server: DriveServer) -> Callable[[str], None]:
        def flip(id: str) -> None:
            body = bytearray(server.drive.files[id].path.read_bytes())
            body[0] ^= 1
            server.drive.files[id].path.write_bytes(body)
            server.drive.files[id].md5 = "0" * 32

        return flip
