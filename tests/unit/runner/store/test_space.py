"""Guard, forecast and sweeper: pure answers."""

from __future__ import annotations

from runner.store.base import Quota, Stat
from runner.store.space import ORPHAN_SECONDS, RESERVE_BYTES, forecast, full_at, orphans, room_for

GB = 1 << 30


def test_an_upload_needs_its_bytes_a_margin_and_a_reserve() -> None:
    just = int(1.1 * GB) + RESERVE_BYTES

    assert room_for(GB, Quota(free=just, total=15 * GB), place="Drive").is_enough
    assert not room_for(GB, Quota(free=just - 1, total=15 * GB), place="Drive").is_enough


def test_a_full_store_says_what_to_do() -> None:
    text = room_for(GB, Quota(free=0, total=15 * GB), place="Drive").text

    assert "1.0 GiB to store, 0 bytes free" in text
    assert "trains here goes on" in text
    assert "free 1.2 GiB there" in text


def test_where_no_limit_is_known_there_is_room() -> None:
    assert room_for(10**15, Quota(free=None), place="bucket").is_enough
    assert forecast(10**15, 3, Quota(free=None), place="bucket").is_enough


def test_a_forecast_counts_what_stays_and_one_on_its_way() -> None:
    room = forecast(int(0.92 * GB), 2, Quota(free=int(4.1 * GB), total=15 * GB), place="Drive")

    assert room.text == "3 × 942 MiB of your 15.0 GiB in Drive; 4.1 GiB free"
    assert room.is_enough
    assert not forecast(int(0.92 * GB), 2, Quota(free=3 * GB, total=15 * GB), place="Drive").is_enough


def test_room_that_is_promised_to_another_job_is_not_there_twice() -> None:
    quota = Quota(free=5 * GB, total=15 * GB)
    first = forecast(GB, 2, quota, place="Drive")

    assert first.is_enough
    assert not forecast(GB, 2, quota, place="Drive", promised=first.needed_bytes).is_enough


def test_only_what_is_old_and_unnamed_is_an_orphan() -> None:
    now = 10_000.0
    old, young = now - ORPHAN_SECONDS - 1, now - ORPHAN_SECONDS + 1
    found = [
        Stat(id="named", size=1, created_at=old),
        Stat(id="orphan", size=1, created_at=old),
        Stat(id="young", size=1, created_at=young),
        Stat(id="ageless", size=1),
    ]

    assert [stat.id for stat in orphans(found, {"named"}, now=now)] == ["orphan"]


HOUR = 3600.0


def test_room_that_shrinks_evenly_ends_when_its_rate_says() -> None:
    assert full_at([(0.0, 10 * GB), (HOUR, 9 * GB), (2 * HOUR, 8 * GB)]) == 10 * HOUR


def test_checkpoints_that_only_fill_the_retention_are_no_rate() -> None:
    assert full_at([(0.0, 10 * GB), (HOUR, 7 * GB), (2 * HOUR, 7 * GB)]) is None


def test_nobody_can_tell_from_less_than_an_hour_or_from_room_that_grows() -> None:
    assert full_at([]) is None
    assert full_at([(0.0, 10 * GB), (900.0, 9 * GB), (1800.0, 8 * GB)]) is None
    assert full_at([(0.0, 8 * GB), (HOUR, 9 * GB), (2 * HOUR, 10 * GB)]) is None


def test_a_clock_that_was_set_back_ends_no_room() -> None:
    assert full_at([(5 * HOUR, 10 * GB), (0.0, 9 * GB), (7 * HOUR, 8 * GB)]) is None
