"""Copies of a database in a store: numbered, kept, found again, never believed unseen. In a folder and in Drive."""

from __future__ import annotations

import gzip
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runner.errors import Damaged, NotStored
from runner.store import copies as generations
from runner.store.base import Store
from runner.store.copies import (
    Generation,
    fetch_generation,
    kept,
    list_generations,
    publish_generation,
    sweep_generations,
)
from runner.store.log import Log
from runner.store.open import open_store
from runner.store.places.directory import DirectoryStore
from runner.store.records import StoredFile
from runner.store.root import open_root
from tests.drive_server.server import DriveServer
from wake2vec.contract.files import digest_file

Open = Callable[[], Store]


@pytest.fixture(params=["dir", "drive"])
def open_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    if request.param == "dir":
        yield lambda: DirectoryStore(tmp_path / "store")
        return
    with DriveServer(tmp_path / "google") as server:
        server.drive.etag_drift = 0.2
        yield lambda: open_store("drive:w", tmp_path / "token-home", environ=server.environ())


def root_of(open_place: Open, holder: str = "me") -> Log:
    return open_root(open_place(), holder=holder)


def published(root: Log, folder: Path, words: str) -> Generation:
    folder = folder / root.holder
    folder.mkdir(exist_ok=True)
    path = folder / "runner.db"
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (words)")
        connection.execute("INSERT INTO t VALUES (?)", (words,))
    connection.close()
    return publish_generation(root, path, journal=folder / "transfers", now=5.0)


def words_of(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT words FROM t").fetchone()[0]
    connection.close()
    return str(found)


def objects(root: Log) -> set[str]:
    return {stat.id for stat in root.store.find("database")}


def test_what_is_published_comes_back_on_another_machine(open_place: Open, tmp_path: Path) -> None:
    published(root_of(open_place), tmp_path, "riverrun")

    (found,) = list_generations(root_of(open_place, "another"))

    assert (found.number, found.holder, found.made_at) == (1, "me", 5.0)
    assert words_of(fetch_generation(root_of(open_place, "another"), found, tmp_path)) == "riverrun"


def test_five_are_kept_and_the_objects_of_the_others_deleted(open_place: Open, tmp_path: Path) -> None:
    root = root_of(open_place)

    for number in range(7):
        published(root, tmp_path, f"copy {number}")

    assert [one.number for one in list_generations(root)] == [3, 4, 5, 6, 7]
    assert objects(root) == {one.file.id for one in list_generations(root)}
    assert not list((tmp_path / "me" / "transfers").glob("*.json"))


def test_homes_that_share_a_store_count_together_and_push_none_of_the_others_out(
    open_place: Open, tmp_path: Path
) -> None:
    quiet, busy = root_of(open_place, "quiet"), root_of(open_place, "busy")
    published(quiet, tmp_path, "once")

    for number in range(6):
        published(busy, tmp_path, f"copy {number}")

    assert [(one.number, one.holder) for one in list_generations(quiet)] == [
        (1, "quiet"), *((number, "busy") for number in range(3, 8))
    ]  # fmt: skip


def test_of_the_dead_homes_five_copies_stay_between_them() -> None:
    file = StoredFile(id="x", size=1, sha256="", md5="")
    every = [Generation(number=n, holder=f"home {n}", file=file, made_at=0.0) for n in range(1, 9)]

    assert [one.number for one in kept(every, "home 2")] == [2, 4, 5, 6, 7, 8]


def test_an_index_that_nobody_can_read_is_begun_anew(open_place: Open, tmp_path: Path) -> None:
    root = root_of(open_place)
    published(root, tmp_path, "first")
    _, tag = root.store.read_head(root.head_id) or (b"", "")
    while not root.store.swap_head(root.head_id, b'{"generations": [{"number": "x"}]}', tag, name="head.*.json"):
        _, tag = root.store.read_head(root.head_id) or (b"", "")  # tags move by themselves
    assert list_generations(root) == []

    published(root, tmp_path, "second")

    assert [one.number for one in list_generations(root)] == [1]


def test_a_copy_whose_bytes_changed_or_went_is_refused(open_place: Open, tmp_path: Path) -> None:
    root = root_of(open_place)
    found = published(root, tmp_path, "riverrun")
    wrong = replace(found.file, sha256="0" * 64, md5="0" * 32)

    with pytest.raises(Damaged):
        fetch_generation(root, replace(found, file=wrong), tmp_path)
    root.store.delete(found.file.id)
    with pytest.raises(NotStored):
        fetch_generation(root, found, tmp_path)


@pytest.mark.parametrize("id", ["../../etc/passwd", "/etc/passwd", "a?alt=media&x=", ""])
def test_an_id_that_leads_elsewhere_is_refused(open_place: Open, tmp_path: Path, id: str) -> None:
    root = root_of(open_place)
    found = published(root, tmp_path, "riverrun")

    with pytest.raises((Damaged, NotStored)):
        fetch_generation(root, replace(found, file=replace(found.file, id=id)), tmp_path)


def test_what_is_no_archive_or_grows_beyond_any_queue_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = root_of(lambda: DirectoryStore(tmp_path / "store"))
    monkeypatch.setattr(generations, "MOST_BYTES", 100_000)
    for name, body in {"torn": gzip.compress(b"x" * 9000)[:-9], "text": b"riverrun", "bomb": b""}.items():
        path = tmp_path / name
        path.write_bytes(body or gzip.compress(bytes(3 << 20)))
        [id] = root.store.new_ids([f"database/{name}.*/runner.db.gz"])
        digest = digest_file(path)
        root.store.put(path, id=id, name=name, digest=digest)

        with pytest.raises(Damaged, match="cannot be unpacked"):
            fetch_generation(
                root, Generation(number=1, holder="", file=StoredFile.of(id, digest), made_at=0.0), tmp_path / "here"
            )
    large = StoredFile(id=id, size=10**9, sha256="", md5="")
    with pytest.raises(Damaged, match="no queue has"):
        fetch_generation(root, Generation(number=1, holder="", file=large, made_at=0.0), tmp_path)


def test_only_what_no_index_names_and_is_old_is_swept(open_place: Open, tmp_path: Path) -> None:
    root = root_of(open_place)
    published(root, tmp_path, "named")
    path = tmp_path / "left"
    path.write_bytes(b"of a killed upload")
    [id] = root.store.new_ids(["database/000009.*/runner.db.gz"])
    root.store.put(path, id=id, name="database/000009.*/runner.db.gz", digest=digest_file(path))

    sweep_generations(root, journal=tmp_path / "none", now=time.time())
    assert len(objects(root)) == 2
    sweep_generations(root, journal=tmp_path / "none", now=time.time() + 4000)
    assert objects(root) == {one.file.id for one in list_generations(root)}


def test_the_index_is_one_small_document(open_place: Open, tmp_path: Path) -> None:
    root = root_of(open_place)
    published(root, tmp_path, "riverrun")

    body, _ = root.store.read_head(root.head_id) or (b"", "")

    assert json.loads(body)["format"] == 1
    assert len(body) < 1000
