"""What a sign-in says of the store that it leads to."""

from __future__ import annotations

from pathlib import Path

from runner.commands.setup.login import whose
from runner.store.drive.store import open_drive
from runner.store.drive.transfer import Throttle
from runner.store.records import Genesis
from runner.store.root import add_job, open_root
from tests.drive_server.server import DriveServer


def test_a_sign_in_tells_what_its_client_has_made_and_what_it_cannot_see(tmp_path: Path) -> None:
    with DriveServer(tmp_path / "google") as server:
        store = open_drive("wake2vec", tmp_path / "home", server.environ(), Throttle())
        empty = whose(store, "client-1")
        add_job(open_root(store, holder="a"), "qwen_p1", Genesis(fingerprint="f"))

        full = whose(store, "client-1")

    assert "client-1 has made nothing there yet" in empty
    assert "repair --yes" in empty
    assert full.endswith("client-1 made what is there: qwen_p1")
