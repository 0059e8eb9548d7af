"""The directory store: the shared suite, and what only a file system can do to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.errors import StoreUnavailable
from runner.store.places.directory import DirectoryStore
from tests.unit.runner.store.suite import NAME, Open, StoreSuite, stored, written


class TestDirectoryStore(StoreSuite):
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path / "store"

    @pytest.fixture
    def open_store(self, root: Path) -> Open:
        return lambda: DirectoryStore(root)

    @pytest.fixture
    def damage(self, root: Path) -> Callable[[str], None]:
        def flip(id: str) -> None:
            body = bytearray((root / id).read_bytes())
            body[0] ^= 1
            (root / id).write_bytes(body)

        return flip

    def test_a_person_finds_a_file_under_its_own_name(self, root: Path, tmp_path: Path) -> None:
        stored(DirectoryStore(root), tmp_path / "in", b"x")

        [found] = root.glob("jobs/q/checkpoints/checkpoint-200.*/trainable.safetensors")
        assert found.read_bytes() == b"x"

    @pytest.mark.parametrize("id", ["../../etc/passwd", "/etc/passwd", "jobs/../../x", ".lock"])
    def test_an_id_from_a_log_cannot_lead_out(self, root: Path, tmp_path: Path, id: str) -> None:
        _, digest = written(tmp_path / "in", b"x")
        store = DirectoryStore(root)

        for call in (store.stat, store.read, store.delete, lambda id: store.get(id, tmp_path / "out", digest=digest)):
            with pytest.raises(ValueError, match="name"):
                call(id)

    def test_a_torn_temporary_file_is_swept_when_it_is_old(self, root: Path, tmp_path: Path) -> None:
        id, _ = stored(DirectoryStore(root), tmp_path / "in", b"x")
        torn = (root / id).with_name(".state.json.123.abcd.tmp")
        torn.write_bytes(b"half")
        young = (root / id).with_name(".state.json.124.abcd.tmp")
        young.write_bytes(b"half")
        os.utime(torn, (1, 1))

        assert [stat.id for stat in DirectoryStore(root).find("jobs/q")] == [id]
        assert not torn.exists()
        assert young.exists()

    def test_a_place_that_cannot_be_a_directory_is_one_clear_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        store = DirectoryStore(tmp_path / "file" / "store")
        source, digest = written(tmp_path / "in", b"x")
        [id] = store.new_ids([NAME])

        for call in (lambda: store.put(source, id=id, name=NAME, digest=digest), store.quota):
            with pytest.raises(StoreUnavailable, match="--store"):
                call()

    def test_the_folder_of_a_group_goes_with_its_last_file(self, root: Path, tmp_path: Path) -> None:
        id, _ = stored(DirectoryStore(root), tmp_path / "in", b"x")

        DirectoryStore(root).delete(id)

        assert list((root / "jobs/q/checkpoints").iterdir()) == []


def test_a_place_that_cannot_hold_folders_is_told_in_one_line() -> None:
    with pytest.raises(StoreUnavailable, match="cannot be made; choose another --store"):
        DirectoryStore(Path("/proc/wake2vec-store")).create("log/000000.json", b"{}", name="log/*.json")
