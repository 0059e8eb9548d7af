"""The fsspec store: the shared suite on memory, on files, and on a back end with S3's conditional create."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from runner.store.places.fsspec import FsStore, open_fs, server_hashes
from tests.unit.runner.store.suite import Open, StoreSuite


class Bucket(MemoryFileSystem):
    """Memory with the exclusive create of S3: check and write are one."""

    protocol = "bucket"
    cachable = False
    lock = threading.Lock()

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        with self.lock:
            if mode == "create" and self.exists(path):
                raise FileExistsError(path)
            super().pipe_file(path, value, **kwargs)


class FsSuite(StoreSuite):
    @pytest.fixture
    def damage(self, open_store: Open) -> Callable[[str], None]:
        store = open_store()
        assert isinstance(store, FsStore)

        def flip(id: str) -> None:
            path = store._path(id)
            body = bytearray(store._fs.cat_file(path))
            body[0] ^= 1
            store._fs.pipe_file(path, bytes(body))

        return flip


class TestConditionalStore(FsSuite):
    @pytest.fixture
    def open_store(self) -> Open:
        root = f"/{secrets.token_hex(8)}"
        return lambda: FsStore(Bucket(), root, conditional=True)

    def test_it_is_for_many_writers(self, open_store: Open) -> None:
        assert not open_store().properties.single_writer


class TestMemoryStore(FsSuite):
    @pytest.fixture
    def open_store(self) -> Open:
        url = f"memory://{secrets.token_hex(8)}"
        return lambda: open_fs(url)

    def test_it_says_that_it_is_for_one_writer(self, open_store: Open) -> None:
        properties = open_store().properties

        assert properties.single_writer
        assert "one runner at a time" in properties.place


class TestFileStore(FsSuite):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Open:
        return lambda: FsStore(LocalFileSystem(), str(tmp_path / "store"), conditional=False)


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"ETag": '"9e107d9d372bb6826bd81d3542a419d6"'}, [("md5", "9e107d9d372bb6826bd81d3542a419d6")]),
        ({"ETag": '"9e107d9d372bb6826bd81d3542a419d6-3"'}, []),
        ({"ETag": '"9e107d9d372bb6826bd81d3542a419d6"', "ServerSideEncryption": "aws:kms"}, []),
        ({"md5Hash": "nhB9nTcrtoJr2B01QqQZ1g=="}, [("md5", "9e107d9d372bb6826bd81d3542a419d6")]),
        ({"lfs": {"sha256": "ab" * 32}}, [("sha256", "ab" * 32)]),
        ({"size": 3}, []),
    ],
)
def test_only_hashes_of_the_content_are_believed(info: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert server_hashes(info) == expected
