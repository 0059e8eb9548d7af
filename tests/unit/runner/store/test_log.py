"""Logs, the root log and leases on a directory store."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.errors import Fenced, JobExists, LeaseHeld, NotStored, StoreBusy
from runner.settings import LEASE_SECONDS
from runner.store.base import Store
from runner.store.lease import Lease, Watch, acquire, read_beat
from runner.store.log import Log
from runner.store.places.directory import DirectoryStore
from runner.store.records import CARRY_EVERY, Genesis, is_done, lease_epoch, regimes
from runner.store.root import add_job, jobs, open_job, open_root


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return DirectoryStore(tmp_path / "store")


def job(store: Store, holder: str = "a") -> Log:
    return add_job(open_root(store, holder=holder), "q", Genesis(fingerprint="f", job={"steps": 3}))


def held(log: Log, at: float = 0.0, *, take_over: bool = False) -> Lease:
    return acquire(log, Watch(), at=at, take_over=take_over)


class Deaf(DirectoryStore):
    """Does what it is told and does not answer, when `lost` says so."""

    lost = 0

    def create(self, id: str, body: bytes, *, name: str) -> bool:
        won = super().create(id, body, name=name)
        if self.lost > 0:
            self.lost -= 1
            raise StoreBusy("no answer")
        return won


def test_an_empty_home_finds_every_job(store: Store) -> None:
    job(store)
    add_job(open_root(store, holder="a"), "r", Genesis(fingerprint="g"))

    root = open_root(store, holder="b")

    assert list(jobs(root.records)) == ["q", "r"]
    assert open_job(root, jobs(root.records)["q"]).records[0].genesis.job == {"steps": 3}


def test_the_same_job_twice_is_one_job(store: Store) -> None:
    assert job(store, "a").first_id == job(store, "b").first_id
    assert len(jobs(open_root(store, holder="c").records)) == 1


def test_another_job_of_the_same_name_is_refused(store: Store) -> None:
    job(store)

    with pytest.raises(JobExists, match="another job of that name"):
        add_job(open_root(store, holder="b"), "q", Genesis(fingerprint="other"))


def test_a_log_that_is_not_there_is_said_so(store: Store) -> None:
    with pytest.raises(NotStored):
        Log.open(store, "jobs/x/log/000000.abcd.json", holder="a")


def test_what_one_appends_the_other_reads(store: Store) -> None:
    mine, other = job(store), job(store, "b")
    held(mine)
    mine.append("REGIME", {"micro_batch": 2}, epoch=1)

    other.refresh()

    assert [record.payload for record in regimes(other.records)] == [{"micro_batch": 2}]


def test_nothing_is_appended_without_a_lease(store: Store) -> None:
    log = job(store)

    with pytest.raises(Fenced):
        log.append("COMMIT", {}, epoch=0)


def test_nothing_follows_done(store: Store) -> None:
    log = job(store)
    lease = held(log)
    log.append("DONE", {}, epoch=1)

    with pytest.raises(Fenced, match="done"):
        log.append("COMMIT", {}, epoch=1)
    lease.release()
    assert is_done(log.records)


def test_a_take_over_fences_whoever_was_there(store: Store) -> None:
    frozen, awake = job(store, "frozen"), job(store, "awake")
    old = held(frozen)
    held(awake, take_over=True)

    with pytest.raises(Fenced, match="awake"):
        frozen.append("COMMIT", {"step": 1}, epoch=1)
    with pytest.raises(Fenced):
        old.check()
    with pytest.raises(Fenced):
        old.release()


def test_a_lost_answer_is_no_lost_record(tmp_path: Path) -> None:
    store = Deaf(tmp_path / "store")
    log = job(store)
    held(log)
    store.lost = 1
    with pytest.raises(StoreBusy):
        log.append("REGIME", {"n": 1}, epoch=1)

    record = log.append("REGIME", {"n": 1}, epoch=1)
    log.append("REGIME", {"n": 2}, epoch=1)

    assert [one.payload["n"] for one in regimes(log.records)] == [1, 2]
    assert record.payload == {"n": 1}


def test_a_reader_may_start_at_a_carrying_record(store: Store) -> None:
    log = job(store)
    lease = held(log)
    for number in range(CARRY_EVERY * 2):
        log.append("COMMIT", {"step": number, "kind": "rolling", "manifest": {"sha256": str(number)}}, epoch=1)
    lease.beat()
    beat, _ = read_beat(log)
    assert beat is not None

    store.delete(log.records[5].next_id)  # a reader from the start would end there
    short = Log.open(store, log.first_id, holder="b", hint=beat.carrying_id)

    assert short.records == log.records


def test_a_job_is_opened_where_its_head_says(store: Store) -> None:
    log = job(store)
    lease = held(log)
    for number in range(CARRY_EVERY * 2):
        log.append("COMMIT", {"step": number, "kind": "rolling", "manifest": {"sha256": str(number)}}, epoch=1)
    lease.beat()
    store.delete(log.records[5].next_id)  # a reader from the start would end there

    assert job(store, "b").records == log.records


def test_a_wrong_hint_costs_only_time(store: Store) -> None:
    log = job(store)
    other = add_job(open_root(store, holder="a"), "r", Genesis(fingerprint="g"))

    assert Log.open(store, log.first_id, holder="b", hint=other.first_id).first_id == log.first_id
    assert Log.open(store, log.first_id, holder="b", hint="jobs/q/log/999999.abcd.json").first_id == log.first_id


def test_a_living_holder_is_respected_and_a_silent_one_is_not(store: Store) -> None:
    mine, rival = job(store, "mine"), job(store, "rival")
    lease, watch = held(mine), Watch()
    lease.beat()
    with pytest.raises(LeaseHeld, match="mine"):
        acquire(rival, watch, at=1000.0)
    lease.beat()
    with pytest.raises(LeaseHeld) as still:
        acquire(rival, watch, at=1000.0 + LEASE_SECONDS)
    with pytest.raises(LeaseHeld):
        acquire(rival, watch, at=1000.0 + 2 * LEASE_SECONDS - 1)

    taken = acquire(rival, watch, at=1000.0 + 2 * LEASE_SECONDS)

    assert still.value.seconds_left == LEASE_SECONDS
    assert still.value.holder == "mine"
    assert taken.epoch == 2
    with pytest.raises(Fenced):
        lease.check()


def test_a_commit_shows_that_its_author_lives(store: Store) -> None:
    mine, rival, watch = job(store, "mine"), job(store, "rival"), Watch()
    held(mine)
    with pytest.raises(LeaseHeld):
        acquire(rival, watch, at=0.0)
    mine.append("COMMIT", {"step": 1}, epoch=1)

    with pytest.raises(LeaseHeld):
        acquire(rival, watch, at=LEASE_SECONDS)


def test_a_released_job_is_free_at_once(store: Store) -> None:
    mine, rival = job(store, "mine"), job(store, "rival")
    held(mine).release()

    assert held(rival).epoch == 2


def test_a_restart_in_the_same_home_need_not_wait(store: Store) -> None:
    held(job(store, "home"))

    assert held(job(store, "home")).epoch == 2


def test_a_beat_finds_out_that_the_job_was_taken(store: Store) -> None:
    mine, rival = job(store, "mine"), job(store, "rival")
    lease = held(mine)
    lease.beat({"step": 7})
    held(rival, take_over=True).beat()

    with pytest.raises(Fenced, match="rival"):
        lease.beat()


def test_a_beat_says_what_its_holder_does(store: Store) -> None:
    log = job(store, "mine")
    held(log).beat({"step": 7})

    beat, _ = read_beat(log)

    assert beat is not None
    assert (beat.holder, beat.epoch, beat.note) == ("mine", 1, {"step": 7})


def test_a_head_that_nobody_can_read_does_not_stop_anyone(store: Store) -> None:
    log = job(store)
    lease = held(log)
    store.swap_head(log.head_id, b"garbage", None, name="jobs/q/head.*.json")

    lease.beat()

    beat, _ = read_beat(log)
    assert beat is not None
    assert lease_epoch(log.records) == beat.epoch
