"""The doctor's probes: they pass on stores that keep their promises, and fail on one that does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.store.drive.probes import drive_scratch
from runner.store.places.directory import DirectoryStore
from runner.store.probes import PROBES, Scratch, examine
from tests.drive_server.server import DriveServer


class Forgetful(DirectoryStore):
    """Lets everyone create everything."""

    def create(self, id: str, body: bytes, *, name: str) -> bool:
        self.delete(id)
        return super().create(id, body, name=name)


def test_a_directory_passes(tmp_path: Path) -> None:
    scratch = Scratch(open=lambda: DirectoryStore(tmp_path / "store"), folder=tmp_path)

    assert [finding for finding in examine(scratch, PROBES) if not finding.passed] == []


def test_a_store_with_two_authors_is_found_out(tmp_path: Path) -> None:
    scratch = Scratch(open=lambda: Forgetful(tmp_path / "store"), folder=tmp_path)

    failed = [finding.name for finding in examine(scratch, PROBES) if not finding.passed]

    assert failed == ["one author"]


def test_drive_passes_and_nothing_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    with DriveServer(tmp_path / "google") as server:
        with drive_scratch(tmp_path, server.environ(), tmp_path / "scratch") as (scratch, probes):
            findings = list(examine(scratch, probes))

        assert server.drive.files == {}
    assert [finding for finding in findings if not finding.passed] == []
    assert len(findings) == len(PROBES) + 3


@pytest.mark.parametrize(("hours", "words"), [(1, "tomorrow"), (30, "was accepted")])
def test_an_id_of_yesterday_is_tried(tmp_path: Path, hours: int, words: str) -> None:
    (tmp_path / "scratch").mkdir()
    with DriveServer(tmp_path / "google") as server:
        old = server.drive.generate_ids(1)["ids"][0]
        made_at = server.drive.now() - hours * 3600
        (tmp_path / "doctor-id.json").write_text(json.dumps({"id": old, "made_at": made_at}))
        with drive_scratch(tmp_path, server.environ(), tmp_path / "scratch") as (scratch, probes):
            findings = {finding.name: finding for finding in examine(scratch, probes)}

    assert findings["ids keep"].passed
    assert words in findings["ids keep"].detail
