"""What becomes of a folder of Drive behind the runner's back, and answers that are not Google's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import Loss, RunnerError, StoreBusy, StoreLost, StoreUnavailable
from runner.store.drive.store import DriveStore, open_drive
from runner.store.drive.transfer import Throttle, _received
from runner.store.log import Log
from runner.store.presence import check_record, check_root
from runner.store.records import Genesis
from runner.store.root import add_job, open_root
from tests.drive_server.faults import Fault, Rule
from tests.drive_server.server import DriveServer
from tests.unit.runner.store.suite import NAME, stored


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DriveServer]:
    with DriveServer(tmp_path / "google") as server:
        yield server


@pytest.fixture
def drive(server: DriveServer, tmp_path: Path) -> DriveStore:
    return open_drive("wake2vec", tmp_path / "a", server.environ(), Throttle())


@pytest.fixture
def root(drive: DriveStore) -> Log:
    return open_root(drive, holder="a")


def id_of(server: DriveServer, title: str) -> str:
    return next(file.id for file in server.drive.files.values() if file.metadata["title"] == title)


def test_a_root_in_the_bin_is_seen_by_whoever_has_it_open(server: DriveServer, root: Log) -> None:
    server.drive.throw_away(id_of(server, "wake2vec"))

    with pytest.raises(StoreLost) as lost:
        check_root(root)

    assert lost.value.loss is Loss.BIN
    assert "restore" in lost.value.remedy


def test_a_root_that_comes_back_from_the_bin_is_the_same(server: DriveServer, root: Log) -> None:
    server.drive.throw_away(id_of(server, "wake2vec"))
    server.drive.throw_away(id_of(server, "wake2vec"), back=True)

    check_root(root)


def test_a_job_folder_in_the_bin_is_seen_by_its_newest_record(server: DriveServer, root: Log) -> None:
    log = add_job(root, "q", Genesis(fingerprint="f"))
    server.drive.throw_away(id_of(server, "q"))

    check_root(root)
    with pytest.raises(StoreLost) as lost:
        check_record(log.store, log.tail_id, log.records[-1].nonce, "q")
    assert lost.value.loss is Loss.BIN


def test_an_ancestor_that_is_deleted_takes_the_root_along(server: DriveServer, root: Log) -> None:
    server.drive.delete(id_of(server, "wake2vec"))

    with pytest.raises(StoreLost) as lost:
        check_root(root)
    assert lost.value.loss is Loss.GONE


@pytest.mark.parametrize("fault", [Fault("status", 503), Fault("drop"), Fault("html", 404), Fault("html", 200)])
def test_a_network_that_fails_is_no_loss(server: DriveServer, root: Log, fault: Fault) -> None:
    server.faults.rules.append(Rule(fault, match="GET /drive/v2/files", times=9))

    with pytest.raises(StoreBusy):
        check_root(root)


def test_a_new_home_makes_no_second_root_beside_one_in_the_bin(server: DriveServer, root: Log, tmp_path: Path) -> None:
    server.drive.throw_away(id_of(server, "wake2vec"))

    with pytest.raises(StoreLost, match="in the bin"):
        open_drive("wake2vec", tmp_path / "b", server.environ(), Throttle()).root_id()


def test_a_pinned_root_that_is_gone_is_never_made_anew(
    server: DriveServer, drive: DriveStore, root: Log, tmp_path: Path
) -> None:
    token = json.loads(server.token_json()) | {"folders": {"wake2vec": drive.folder_id}}
    server.drive.delete(drive.folder_id)
    environ = {**server.environ(), "WAKE2VEC_DRIVE_TOKEN": json.dumps(token)}

    with pytest.raises(StoreLost, match="is gone"):
        open_drive("wake2vec", tmp_path / "b", environ, Throttle()).root_id()
    assert len(server.drive.files) == 0


def test_a_kill_while_the_root_is_made_makes_no_second_one_under_lag(server: DriveServer, tmp_path: Path) -> None:
    server.drive.list_lag_seconds = 1e9
    server.faults.rules.append(Rule(Fault("after", 503), match="POST /drive/v2/files"))
    with pytest.raises(StoreBusy):
        open_drive("wake2vec", tmp_path / "a", server.environ(), Throttle()).root_id()

    with pytest.raises(StoreBusy, match="a moment ago"):
        open_drive("wake2vec", tmp_path / "a", server.environ(), Throttle()).root_id()
    assert len(server.drive.files) == 1


def test_a_renewed_root_is_what_everyone_finds(
    server: DriveServer, drive: DriveStore, root: Log, tmp_path: Path
) -> None:
    before = drive.root_id()
    server.drive.delete(before)
    drive.renew_root()

    assert drive.root_id() != before
    assert open_drive("wake2vec", tmp_path / "b", server.environ(), Throttle()).root_id() == drive.root_id()


def test_a_job_folder_that_was_deleted_is_made_again(server: DriveServer, drive: DriveStore, tmp_path: Path) -> None:
    stored(drive, tmp_path / "in", b"one")
    server.drive.delete(id_of(server, "jobs"))
    with pytest.raises(RunnerError):
        stored(drive, tmp_path / "in", b"two")

    id, _ = stored(drive, tmp_path / "in", b"two")

    assert drive.stat(id) is not None


@pytest.mark.parametrize("said", ["bytes=0-x", "nonsense", "bytes=5-9", "", "bytes=0-" + "9" * 40])
def test_a_308_that_is_not_googles_is_a_store_error(said: str) -> None:
    with pytest.raises(StoreBusy, match="not Google's"):
        _received("send", {"range": said})


@pytest.mark.parametrize("status", [200, 204, 302, 307, 308, 404, 410, 418])
@pytest.mark.parametrize("match", ["generateIds", "/upload/", "/session/", "GET /drive/v2/files/1", "about"])
def test_a_page_in_place_of_an_answer_is_a_store_error(
    server: DriveServer, drive: DriveStore, root: Log, tmp_path: Path, status: int, match: str
) -> None:
    server.faults.rules.append(Rule(Fault("html", status), match=match))

    try:
        id, _ = stored(drive, tmp_path / "in", b"x" * 1000, NAME)
        drive.stat(id)
        drive.quota()
        drive.create(drive.new_ids([NAME])[0], b"{}", name=NAME)
    except (StoreUnavailable, RunnerError):
        pass


@pytest.mark.parametrize("body", [{}, {"ids": []}, {"ids": None}, {"labels": 1}, {"id": "x", "fileSize": "many"}])
def test_json_of_another_shape_is_a_store_error(
    server: DriveServer, drive: DriveStore, root: Log, body: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.drive, "describe", lambda file: body)
    monkeypatch.setattr(server.drive, "generate_ids", lambda count: body)
    monkeypatch.setattr(server.drive, "about", lambda: body)

    for call in (lambda: drive.stat(root.first_id), drive.quota, lambda: drive.new_ids([NAME] * 30)):
        with pytest.raises(StoreBusy):
            call()
