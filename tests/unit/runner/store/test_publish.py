"""Checkpoints into a store and out again: order, repetition, reuse, and what a damaged or missing part does."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from runner.errors import Damaged, Fenced, NotStored, StoreBusy, StoreFull, StoreUnavailable
from runner.store.base import Progress, Properties, Quota, Store
from runner.store.journal import set_aside
from runner.store.lease import Lease, Watch, acquire
from runner.store.log import Log
from runner.store.places.directory import DirectoryStore
from runner.store.publish import (
    StoredFile,
    fetch_checkpoint,
    fetch_files,
    forget,
    publish_checkpoint,
    publish_files,
    sweep,
)
from runner.store.records import Genesis, Record, commits
from runner.store.root import add_job, open_root
from runner.store.space import RESERVE_BYTES
from runner.store.transfer import Shipment, Transfer, ship_in_a_process
from tests.unit.runner.store.suite import checkpoint
from wake2vec.contract.errors import CheckpointCorrupt
from wake2vec.contract.files import FileDigest, digest_file
from wake2vec.contract.manifest import CHECKPOINT_FILES


class Leaky(DirectoryStore):
    """Fails at its n-th put, before or after doing it."""

    fails: dict[int, bool]
    puts = 0

    def put(self, path: Path, *, id: str, name: str, digest: FileDigest, progress: Progress | None = None) -> None:
        self.puts += 1
        does_it = self.fails.get(self.puts)
        if does_it is not False:
            super().put(path, id=id, name=name, digest=digest, progress=progress)
        if does_it is not None:
            raise StoreBusy("no answer")


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def begun(store: Store, holder: str = "me") -> tuple[Log, Lease]:
    log = add_job(open_root(store, holder=holder), "q", Genesis(fingerprint="f"))
    return log, acquire(log, Watch(), at=0.0, take_over=True)


def published(store: Store, log: Log, folder: Path, tmp_path: Path, epoch: int = 1) -> Record:
    return publish_checkpoint(store, log, folder, epoch=epoch, kind="milestone", journal=tmp_path / "transfers")


def objects(store: Store) -> list[str]:
    return [stat.id for stat in store.find("jobs/q/checkpoints")]


def test_a_checkpoint_comes_back_as_it_went(store: DirectoryStore, tmp_path: Path) -> None:
    log, _ = begun(store)
    record = published(store, log, checkpoint(tmp_path / "run", 200), tmp_path)

    found = fetch_checkpoint(store, record, tmp_path / "new")

    assert record.commit.step == 200
    assert {path.name: path.read_bytes() for path in found.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoint-200").iterdir()
    }
    assert fetch_checkpoint(store, record, tmp_path / "new") == found


def test_publishing_again_commits_nothing_new(store: DirectoryStore, tmp_path: Path) -> None:
    log, _ = begun(store)
    folder = checkpoint(tmp_path / "run", 200)

    records = [published(store, log, folder, tmp_path) for _ in range(3)]

    assert len(commits(log.records)) == 1
    assert len({record.nonce for record in records}) == 1
    assert len(objects(store)) == 4


@pytest.mark.parametrize("does_it", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_an_upload_that_failed_anywhere_is_continued(tmp_path: Path, at: int, does_it: bool) -> None:
    store = Leaky(tmp_path / "store")
    store.fails = {at: does_it}
    log, _ = begun(store)
    folder = checkpoint(tmp_path / "run", 200)
    with pytest.raises(StoreBusy):
        published(store, log, folder, tmp_path)
    assert commits(log.records) == []

    published(store, log, folder, tmp_path)

    assert len(objects(store)) == 4
    assert list((tmp_path / "transfers").glob("*.json")) == []


def test_nothing_is_sent_when_there_is_no_room_for_all(tmp_path: Path) -> None:
    class Small(DirectoryStore):
        free = 70_000 + RESERVE_BYTES

        def quota(self) -> Quota:
            return Quota(free=self.free)

    store = Small(tmp_path / "store")
    log, _ = begun(store)
    folder = checkpoint(tmp_path / "run", 200, size=20_000)
    with pytest.raises(StoreFull, match="What trains here goes on"):
        publish_checkpoint(
            store, log, checkpoint(tmp_path / "run", 400, size=30_000), epoch=1, kind="rolling", journal=tmp_path / "t"
        )
    assert objects(store) == []

    published(store, log, folder, tmp_path)

    assert len(objects(store)) == 4


def test_a_part_that_did_not_change_is_stored_once(store: DirectoryStore, tmp_path: Path) -> None:
    log, _ = begun(store)
    first = published(store, log, checkpoint(tmp_path / "run", 200), tmp_path)
    second = published(store, log, checkpoint(tmp_path / "run", 400), tmp_path)

    assert second.commit.parts["optimizer.safetensors"] == first.commit.parts["optimizer.safetensors"]
    assert len(objects(store)) == 7
    fetch_checkpoint(store, second, tmp_path / "new")


def test_a_shared_part_that_was_deleted_is_stored_again(store: DirectoryStore, tmp_path: Path) -> None:
    log, _ = begun(store)
    first = published(store, log, checkpoint(tmp_path / "run", 200), tmp_path)
    for part in first.commit.parts.values():
        store.delete(part.id)

    second = published(store, log, checkpoint(tmp_path / "run", 400), tmp_path)

    fetch_checkpoint(store, second, tmp_path / "new")


def test_a_fenced_runner_uploads_nothing(store: DirectoryStore, tmp_path: Path) -> None:
    log, lease = begun(store, "frozen")
    begun(store, "awake")

    with pytest.raises(Fenced):
        published(store, log, checkpoint(tmp_path / "run", 200), tmp_path, lease.epoch)

    assert objects(store) == []


def test_a_damaged_checkpoint_is_not_uploaded(store: DirectoryStore, tmp_path: Path) -> None:
    log, _ = begun(store)
    folder = checkpoint(tmp_path / "run", 200)
    (folder / "state.json").write_bytes(b"{}")

    with pytest.raises(CheckpointCorrupt):
        published(store, log, folder, tmp_path)

    assert objects(store) == []


@pytest.mark.parametrize("name", [*CHECKPOINT_FILES, "manifest.json"])
def test_a_checkpoint_that_rotted_in_the_store_is_never_taken(store: DirectoryStore, tmp_path: Path, name: str) -> None:
    log, _ = begun(store)
    record = published(store, log, checkpoint(tmp_path / "run", 200), tmp_path)
    part = record.files[name]
    body = bytearray((store.root / part.id).read_bytes())
    body[-1] ^= 1
    (store.root / part.id).write_bytes(body)

    with pytest.raises(Damaged):
        fetch_checkpoint(store, record, tmp_path / "new")

    assert not (tmp_path / "new" / "checkpoint-200").exists()


def test_a_part_that_is_gone_is_said_so(store: DirectoryStore, tmp_path: Path) -> None:
    log, _ = begun(store)
    record = published(store, log, checkpoint(tmp_path / "run", 200), tmp_path)
    store.delete(record.commit.parts["state.json"].id)

    with pytest.raises(NotStored):
        fetch_checkpoint(store, record, tmp_path / "new")


def test_a_record_cannot_bring_foreign_files(store: DirectoryStore, tmp_path: Path) -> None:
    log, _ = begun(store)
    record = published(store, log, checkpoint(tmp_path / "run", 200), tmp_path)
    part = record.payload["parts"]["state.json"]
    foreign = replace(record, payload=record.payload | {"parts": {**record.payload["parts"], "optimizer.pt": part}})
    fewer = {name: one for name, one in record.payload["parts"].items() if name != "state.json"}

    with pytest.raises(Damaged, match=r"optimizer\.pt"):
        fetch_checkpoint(store, foreign, tmp_path / "new")
    with pytest.raises(Damaged, match="other files"):
        fetch_checkpoint(store, replace(record, payload=record.payload | {"parts": fewer}), tmp_path / "new")


def test_another_checkpoint_in_the_way_is_left_alone(store: DirectoryStore, tmp_path: Path) -> None:
    log, _ = begun(store)
    record = published(store, log, checkpoint(tmp_path / "run", 200), tmp_path)
    other = checkpoint(tmp_path / "new", 200, salt="other")
    before = (other / "state.json").read_bytes()

    with pytest.raises(Damaged, match="left alone"):
        fetch_checkpoint(store, record, tmp_path / "new")

    assert (other / "state.json").read_bytes() == before


def test_only_what_no_upload_will_ever_need_is_swept(tmp_path: Path) -> None:
    store = Leaky(tmp_path / "store")
    store.fails = {}
    log, _ = begun(store)
    published(store, log, checkpoint(tmp_path / "run", 200), tmp_path)
    lost = checkpoint(tmp_path / "run", 300)
    store.fails = {store.puts + 3: False}
    with pytest.raises(StoreBusy):
        publish_checkpoint(store, log, lost, epoch=1, kind="rolling", journal=tmp_path / "another home")
    waiting = checkpoint(tmp_path / "run", 400)
    store.fails = {store.puts + 3: False}
    with pytest.raises(StoreBusy):
        published(store, log, waiting, tmp_path)
    before = objects(store)

    assert sweep(store, log, journal=tmp_path / "transfers", now=time.time()) == []
    swept = [stat.id for stat in sweep(store, log, journal=tmp_path / "transfers", now=time.time() + 4000)]

    assert swept == [id for id in before if "checkpoint-300" in id]
    assert objects(store) == [id for id in before if "checkpoint-300" not in id]


def test_files_go_out_and_come_back_once_each(store: DirectoryStore, tmp_path: Path) -> None:
    paths = {"a.txt": tmp_path / "a.txt", "deep/b.txt": tmp_path / "b.txt"}
    for path in paths.values():
        path.write_text(path.name)
    digests = {name: digest_file(path) for name, path in paths.items()}
    journal = tmp_path / "transfers"
    first = publish_files(store, paths, digests, folder="inputs/x", known={}, journal=journal)
    forget(journal, "inputs/x")

    again = publish_files(
        store, paths, digests, folder="inputs/y", known={file.sha256: file for file in first.values()}, journal=journal
    )
    found = fetch_files(store, again, tmp_path / "new")

    assert again == first
    assert {name: path.read_text() for name, path in found.items()} == {"a.txt": "a.txt", "deep/b.txt": "b.txt"}


class Meeting(DirectoryStore):
    """Takes files only when two of them come at the same time, and remembers in which order they were there."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.meeting = threading.Barrier(2, timeout=20)
        self.there: list[str] = []

    @property
    def properties(self) -> Properties:
        return replace(super().properties, at_once=2)

    def put(self, path: Path, *, id: str, name: str, digest: FileDigest, progress: Progress | None = None) -> None:
        if path.name != "last":
            self.meeting.wait()
        if path.name == "spent":
            raise NotStored("this id cannot be used")
        assert progress
        progress(digest.size // 2)
        super().put(path, id=id, name=name, digest=digest, progress=progress)
        self.there.append(path.name)


def sent(store: Store, tmp_path: Path, *names: str, progress: Progress | None = None) -> dict[str, StoredFile]:
    paths = {name: tmp_path / name for name in names}
    for path in paths.values():
        path.write_text(path.name * 100)
    digests = {name: digest_file(path) for name, path in paths.items()}
    return publish_files(store, paths, digests, folder="x", known={}, journal=tmp_path / "transfers", progress=progress)


def test_files_go_out_side_by_side_and_the_last_one_last(tmp_path: Path) -> None:
    store, sizes = Meeting(tmp_path / "store"), list[int]()

    sent(store, tmp_path, "weights", "optimizer", "last", progress=sizes.append)

    assert store.there[-1] == "last"
    assert len(store.there) == 3
    assert sizes == sorted(sizes)
    assert sizes[-1] == sum(len(name) * 100 for name in store.there)


def test_of_files_that_go_out_side_by_side_one_fails_and_only_its_id_is_given_up(tmp_path: Path) -> None:
    store = Meeting(tmp_path / "store")
    with pytest.raises(NotStored):
        sent(store, tmp_path, "weights", "spent", "last")

    kept = set_aside(tmp_path / "transfers")

    assert store.there == ["weights"]
    assert len(kept) == 2
    assert not any("spent" in id for id in kept)


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a/../../out", ".hidden"])
def test_a_name_from_a_record_cannot_leave_its_folder(store: DirectoryStore, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        fetch_files(store, {name: StoredFile(id="a", size=0, sha256="", md5="")}, tmp_path / "new")


def finish(transfer: Transfer) -> Record:
    while (record := transfer.poll()) is None:
        time.sleep(0.05)
    return record


def test_a_transfer_commits_from_a_process_of_its_own(store: DirectoryStore, tmp_path: Path) -> None:
    log, lease = begun(store)
    folder = checkpoint(tmp_path / "run", 200)
    shipment = Shipment(
        store_url=f"dir:{store.root}", home=str(tmp_path), first_id=log.first_id, holder="me", epoch=lease.epoch,
        folder=str(folder), kind="milestone",
    )  # fmt: skip

    record = finish(Transfer.start(shipment, tmp_path / "transfers" / "running"))

    log.refresh()
    assert commits(log.records) == [record]


def test_a_transfer_tells_what_stopped_it(store: DirectoryStore, tmp_path: Path) -> None:
    log, lease = begun(store)
    folder = checkpoint(tmp_path / "run", 200)
    begun(store, "awake")
    shipment = Shipment(
        store_url=f"dir:{store.root}", home=str(tmp_path), first_id=log.first_id, holder="me", epoch=lease.epoch,
        folder=str(folder), kind="milestone",
    )  # fmt: skip

    with pytest.raises(Fenced, match="awake"):
        finish(Transfer.start(shipment, tmp_path / "transfers" / "running"))
    (folder / "state.json").write_bytes(b"{}")
    with pytest.raises(CheckpointCorrupt):
        finish(Transfer.start(shipment, tmp_path / "transfers" / "running"))


def test_a_killed_transfer_is_a_store_that_was_not_reached(store: DirectoryStore, tmp_path: Path) -> None:
    log, lease = begun(store)
    shipment = Shipment(
        store_url=f"dir:{store.root}", home=str(tmp_path), first_id=log.first_id, holder="me", epoch=lease.epoch,
        folder=str(checkpoint(tmp_path / "run", 200)), kind="milestone",
    )  # fmt: skip
    transfer = Transfer.start(shipment, tmp_path / "transfers" / "running")
    transfer.kill()

    with pytest.raises(StoreUnavailable, match="ended with -9"):
        transfer.poll()


def test_a_transfer_that_stands_still_is_killed(store: DirectoryStore, tmp_path: Path) -> None:
    log, lease = begun(store)
    shipment = Shipment(
        store_url=f"dir:{store.root}", home=str(tmp_path), first_id=log.first_id, holder="me", epoch=lease.epoch,
        folder=str(checkpoint(tmp_path / "run", 200)), kind="milestone",
    )  # fmt: skip
    hours = iter(range(0, 36_000, 3600))

    with pytest.raises(StoreBusy, match="no byte moved"):
        ship_in_a_process(
            shipment,
            tmp_path / "running",
            progress=lambda size: None,
            monotonic=lambda: next(hours),
            sleep=lambda _: None,
        )


def test_whoever_watches_a_transfer_can_end_it(store: DirectoryStore, tmp_path: Path) -> None:
    log, lease = begun(store)
    shipment = Shipment(
        store_url=f"dir:{store.root}", home=str(tmp_path), first_id=log.first_id, holder="me", epoch=lease.epoch,
        folder=str(checkpoint(tmp_path / "run", 200)), kind="milestone",
    )  # fmt: skip

    def fenced(size: int) -> None:
        raise Fenced("somebody has the job")

    with pytest.raises(Fenced):
        ship_in_a_process(shipment, tmp_path / "running", progress=fenced)

    log.refresh()
    assert commits(log.records) == []
