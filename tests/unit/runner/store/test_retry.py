"""The retrying wrapper: how long it waits, when it gives up, and what it never repeats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import SignInNeeded, StoreBusy, StoreFull
from runner.store.base import Progress, Quota
from runner.store.places.directory import DirectoryStore
from runner.store.retry import Backoff, RetryingStore
from tests.unit.runner.store.suite import NAME, Open, StoreSuite, written
from wake2vec.contract.files import FileDigest


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Failing(DirectoryStore):
    """Raises what `errors` holds, one a call, before it works."""

    def __init__(self, root: Path, errors: list[Exception]) -> None:
        super().__init__(root)
        self.errors = errors

    def quota(self) -> Quota:
        if self.errors:
            raise self.errors.pop(0)
        return super().quota()


class Halting(DirectoryStore):
    """An upload that fails after every 10 bytes but keeps what it has."""

    sent = 0
    clock: Clock

    def put(self, path: Path, *, id: str, name: str, digest: FileDigest, progress: Progress | None = None) -> None:
        self.clock.now += 100.0
        self.sent += 10
        if progress:
            progress(self.sent)
        if self.sent < digest.size:
            raise StoreBusy("cut")


def retrying(store: DirectoryStore, clock: Clock, backoff: Backoff | None = None) -> RetryingStore:
    return RetryingStore(store, backoff=backoff, monotonic=clock.monotonic, sleep=clock.sleep, draw=lambda: 1.0)


class TestRetryingStore(StoreSuite):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Open:
        return lambda: RetryingStore(DirectoryStore(tmp_path / "store"))

    @pytest.fixture
    def damage(self, tmp_path: Path) -> Callable[[str], None]:
        return lambda id: (tmp_path / "store" / id).write_bytes(b"?") and None


@given(st.integers(0, 200), st.none() | st.floats(0, 1000), st.floats(0, 1))
def test_a_wait_is_within_the_cap_and_at_least_what_was_asked(attempt: int, asked: float | None, draw: float) -> None:
    wait = Backoff().wait(attempt, asked, draw)

    assert (asked or 0.0) <= wait <= max(60.0, asked or 0.0)


def test_waits_double_up_to_the_cap(tmp_path: Path) -> None:
    clock = Clock()
    store = retrying(
        Failing(tmp_path, [StoreBusy("x") for _ in range(5)]), clock, Backoff(base_seconds=1, cap_seconds=5)
    )

    store.quota()

    assert clock.waits == [1, 2, 4, 5, 5]


def test_what_the_store_asks_for_is_waited(tmp_path: Path) -> None:
    clock = Clock()

    retrying(Failing(tmp_path, [StoreBusy("x", retry_after_seconds=42.0)]), clock).quota()

    assert clock.waits == [42.0]


def test_a_long_pause_is_left_to_whoever_can_tell_of_it(tmp_path: Path) -> None:
    clock = Clock()

    with pytest.raises(StoreBusy) as told:
        retrying(Failing(tmp_path, [StoreBusy("x", retry_after_seconds=3600.0)]), clock).quota()

    assert told.value.retry_after_seconds == 3600.0
    assert clock.waits == []


def test_it_gives_up_before_its_patience_ends(tmp_path: Path) -> None:
    clock = Clock()
    store = retrying(Failing(tmp_path, [StoreBusy("x") for _ in range(100)]), clock, Backoff(give_up_seconds=100))

    with pytest.raises(StoreBusy):
        store.quota()

    assert 40 < clock.now <= 100


@pytest.mark.parametrize("error", [StoreFull("full"), SignInNeeded("who")])
def test_what_waiting_cannot_mend_is_told_at_once(tmp_path: Path, error: Exception) -> None:
    clock = Clock()

    with pytest.raises(type(error)):
        retrying(Failing(tmp_path, [error]), clock).quota()

    assert clock.waits == []


def test_a_long_upload_may_meet_more_failures_than_patience_lasts(tmp_path: Path) -> None:
    clock, inner = Clock(), Halting(tmp_path)
    inner.clock = clock
    source, digest = written(tmp_path / "in", b"x" * 100)

    retrying(inner, clock).put(source, id="a", name=NAME, digest=digest)

    assert clock.now > 900
