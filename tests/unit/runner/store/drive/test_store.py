"""The Drive store against the loopback Drive: the shared suite, and what only Drive does."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.errors import Damaged, Fenced, LeaseHeld, NotStored, StoreBusy, StoreFull, StoreUnavailable
from runner.store.base import Store
from runner.store.drive.store import DriveStore, open_drive
from runner.store.drive.transfer import PIECE_BYTES, PIECES_AT_ONCE, UNIT_BYTES, Throttle
from runner.store.lease import Watch, acquire, read_beat
from runner.store.log import Log
from runner.store.records import Genesis
from runner.store.retry import RetryingStore
from runner.store.root import add_job, open_root
from tests.drive_server.faults import Fault, Rule
from tests.drive_server.server import DriveServer
from tests.unit.runner.store.suite import NAME, Open, StoreSuite, stored, written


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


def opened(server: DriveServer, home: Path, throttle: Throttle | None = None) -> DriveStore:
    return open_drive("wake2vec", home, server.environ(), throttle or Throttle())


def titles(server: DriveServer) -> set[str]:
    return {str(file.metadata["title"]) for file in server.drive.files.values()}


def test_a_new_home_finds_the_root_by_search(server: DriveServer, tmp_path: Path) -> None:
    first = opened(server, tmp_path / "a")

    assert opened(server, tmp_path / "b").root_id() == first.root_id()
    assert titles(server) == {"wake2vec"}


def test_a_pinned_root_needs_no_listing(server: DriveServer, tmp_path: Path) -> None:
    server.drive.list_lag_seconds = 1e9
    first = opened(server, tmp_path / "a")
    first.root_id()
    token = json.loads(server.token_json()) | {"folders": {"wake2vec": first.folder_id}}
    environ = {**server.environ(), "WAKE2VEC_DRIVE_TOKEN": json.dumps(token)}

    assert open_drive("wake2vec", tmp_path / "b", environ, Throttle()).root_id() == first.root_id()


def test_of_two_roots_everyone_takes_the_older(server: DriveServer, tmp_path: Path) -> None:
    server.drive.list_lag_seconds = 1e9
    first = opened(server, tmp_path / "a")
    first.root_id()
    server.drive.now = lambda: time.time() + 60
    opened(server, tmp_path / "b").root_id()
    server.drive.list_lag_seconds = 0

    assert opened(server, tmp_path / "c").root_id() == first.root_id()


def test_a_root_in_the_bin_is_said_so(server: DriveServer, tmp_path: Path) -> None:
    first = opened(server, tmp_path / "a")
    first.root_id()
    server.drive.files[first.folder_id].metadata["labels"] = {"trashed": True}
    token = json.loads(server.token_json()) | {"folders": {"wake2vec": first.folder_id}}
    environ = {**server.environ(), "WAKE2VEC_DRIVE_TOKEN": json.dumps(token)}

    with pytest.raises(StoreUnavailable, match="restore it"):
        open_drive("wake2vec", tmp_path / "b", environ, Throttle()).root_id()


def test_a_person_finds_folders_and_names(server: DriveServer, tmp_path: Path) -> None:
    stored(opened(server, tmp_path / "a"), tmp_path / "in", b"x")

    assert titles(server) == {"wake2vec", "jobs", "q", "checkpoints", "checkpoint-200/trainable.safetensors"}


def test_a_full_drive_is_no_reason_to_try_again(server: DriveServer, tmp_path: Path) -> None:
    server.drive.quota_bytes = 1000
    store = opened(server, tmp_path / "a")

    with pytest.raises(StoreFull, match="bin"):
        stored(store, tmp_path / "in", b"x" * 2000)


def test_a_cut_upload_goes_on_at_the_byte(server: DriveServer, tmp_path: Path) -> None:
    body = bytes(range(256)) * 4096 * 3  # twelve units
    source, digest = written(tmp_path / "in", body)
    store = opened(server, tmp_path / "a", Throttle(bytes_per_second=1e6, sleep=lambda seconds: None))
    [id] = store.new_ids([NAME])
    server.faults.rules = [Rule(Fault("cut"), "PUT /session", skip=1)]
    with pytest.raises(StoreBusy):
        store.put(source, id=id, name=NAME, digest=digest)

    opened(server, tmp_path / "a").put(source, id=id, name=NAME, digest=digest)

    assert server.drive.counts["sessions"] == 1
    assert server.drive.files[id].path.read_bytes() == body
    assert server.drive.counts["chunk_bytes"] - len(body) <= 8 * UNIT_BYTES


def test_a_file_that_shrank_is_no_reason_to_try_again(server: DriveServer, tmp_path: Path) -> None:
    source, digest = written(tmp_path / "in", b"x" * 1000)
    source.write_bytes(b"")
    store = opened(server, tmp_path / "a")
    [id] = store.new_ids([NAME])

    with pytest.raises(Damaged, match="ends at byte 0"):
        store.put(source, id=id, name=NAME, digest=digest)


def test_an_id_that_drive_no_longer_takes_is_given_up(server: DriveServer, tmp_path: Path) -> None:
    source, digest = written(tmp_path / "in", b"x" * 1000)
    store = opened(server, tmp_path / "a")
    [id] = store.new_ids([NAME])
    server.drive.ids.clear()

    with pytest.raises(NotStored, match="takes another"):
        store.put(source, id=id, name=NAME, digest=digest)


def test_an_expired_session_begins_anew(server: DriveServer, tmp_path: Path) -> None:
    server.faults.rules = [Rule(Fault("expire"), "PUT /session")]

    id, digest = stored(
        RetryingStore(opened(server, tmp_path / "a"), sleep=lambda seconds: None), tmp_path / "in", b"x" * 9
    )

    assert server.drive.counts["sessions"] == 2
    assert server.drive.files[id].size == digest.size


def test_an_upload_whose_answer_was_lost_makes_one_file(server: DriveServer, tmp_path: Path) -> None:
    server.faults.rules = [Rule(Fault("no_answer"), "PUT /session", times=2), Rule(Fault("after"), "PUT /session")]

    store = RetryingStore(opened(server, tmp_path / "a"), sleep=lambda seconds: None)
    id, _ = stored(store, tmp_path / "in", b"x" * 9)

    assert [stat.id for stat in store.find("jobs/q/checkpoints")] == [id]


def test_the_bandwidth_cap_is_kept(server: DriveServer, tmp_path: Path) -> None:
    class Clock:
        now = 0.0

        def sleep(self, seconds: float) -> None:
            self.now += seconds

    clock = Clock()
    throttle = Throttle(bytes_per_second=1 << 20, monotonic=lambda: clock.now, sleep=clock.sleep)

    stored(opened(server, tmp_path / "a", throttle), tmp_path / "in", b"x" * (5 << 20))

    assert clock.now == pytest.approx(5.0)


def test_a_large_object_comes_over_several_connections(server: DriveServer, tmp_path: Path) -> None:
    seen, lock = [0, 0], threading.Lock()  # on their way now, and at most
    answer = server.drive.get

    def counted(id: str) -> Any:
        with lock:
            seen[0] += 1
            seen[1] = max(seen)
        if seen[1] < PIECES_AT_ONCE:
            together.wait(timeout=20)  # a single connection would never bring another
        elif not together.is_set():
            together.set()
        with lock:
            seen[0] -= 1
        return answer(id)

    together = threading.Event()
    body = random.Random(1).randbytes(PIECE_BYTES * 5 + 7)
    store = opened(server, tmp_path / "a")
    id, digest = stored(store, tmp_path / "in", body)
    server.drive.lock = contextlib.nullcontext()  # type: ignore[assignment]  # or the loopback takes one at a time
    server.drive.get = counted  # type: ignore[method-assign]

    sizes: list[int] = []
    store.get(id, tmp_path / "out", digest=digest, progress=sizes.append)

    assert (tmp_path / "out").read_bytes() == body
    assert seen[1] == PIECES_AT_ONCE
    assert sizes == [PIECE_BYTES * number for number in range(1, 6)] + [len(body)]


def test_a_cut_download_goes_on_at_the_piece(server: DriveServer, tmp_path: Path) -> None:
    body = random.Random(2).randbytes(PIECE_BYTES * 8)
    store = opened(server, tmp_path / "a")
    id, digest = stored(store, tmp_path / "in", body)
    server.faults.rules = [Rule(Fault("half_answer"), "GET /drive/v2/files/", skip=5, times=10)]
    with pytest.raises(StoreBusy):
        store.get(id, tmp_path / "out", digest=digest)
    arrived = (tmp_path / "out.part").stat().st_size
    server.faults.rules = [Rule(Fault("slow", bytes_per_second=1e12), "GET /drive/v2/files/", times=100)]

    opened(server, tmp_path / "a").get(id, tmp_path / "out", digest=digest)

    assert arrived > 0
    assert arrived % PIECE_BYTES == 0
    assert (tmp_path / "out").read_bytes() == body
    assert server.faults.met["slow"] == 8 - arrived // PIECE_BYTES


def test_with_a_cap_everything_goes_over_one_connection(server: DriveServer, tmp_path: Path) -> None:
    assert opened(server, tmp_path / "a").properties.at_once > 1
    assert opened(server, tmp_path / "a", Throttle(bytes_per_second=1e6)).properties.at_once == 1


def test_a_holder_that_fell_silent_before_anybody_looked_is_not_waited_for(server: DriveServer, tmp_path: Path) -> None:
    mine = add_job(open_root(opened(server, tmp_path / "a"), holder="a"), "q", Genesis(fingerprint="f"))
    held = acquire(mine, Watch(), at=0.0)
    held.beat()
    other = Log.open(opened(server, tmp_path / "b"), mine.first_id, holder="b")
    with pytest.raises(LeaseHeld) as early:
        acquire(other, Watch(), at=0.0)
    began = server.drive.now()
    server.drive.now = lambda: began + 170  # the log has been as it is all the time; the heartbeat has not
    held.beat()
    server.drive.now = lambda: began + 200
    with pytest.raises(LeaseHeld) as alive:
        acquire(other, Watch(), at=0.0)
    server.drive.now = lambda: began + 360

    lease = acquire(other, Watch(), at=0.0)

    assert early.value.seconds_left > 170
    assert 140 < alive.value.seconds_left < 160
    assert lease.epoch == held.epoch + 1
    with pytest.raises(Fenced):
        held.check()


def test_tags_that_move_by_themselves_do_not_stop_the_heartbeat(server: DriveServer, tmp_path: Path) -> None:
    log = add_job(open_root(opened(server, tmp_path / "a"), holder="a"), "q", Genesis(fingerprint="f"))
    lease = acquire(log, Watch(), at=0.0)
    lease.beat()
    server.drive.etag_drift = 0.5

    for number in range(20):
        lease.beat({"step": number})

    beat, _ = read_beat(log)
    assert beat is not None
    assert beat.note == {"step": 19}


def test_bytes_that_changed_on_the_way_are_asked_for_again(server: DriveServer, tmp_path: Path) -> None:
    store = opened(server, tmp_path / "a")
    id, digest = stored(store, tmp_path / "in", b"riverrun")
    server.drive.files[id].path.write_bytes(b"riverrum")  # its md5 is still the old one

    with pytest.raises(StoreBusy, match="on the way"):
        store.get(id, tmp_path / "out", digest=digest)


def test_an_id_that_cannot_lead_anywhere_is_refused(server: DriveServer, tmp_path: Path) -> None:
    _, digest = written(tmp_path / "in", b"x")

    with pytest.raises(ValueError, match="id"):
        opened(server, tmp_path / "a").get("../../token", tmp_path / "out", digest=digest)
