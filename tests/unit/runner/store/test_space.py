"""Guard, forecast and sweeper: pure answers."""

from __future__ import annotations

from runner.store.base import Quota, Stat
from runner.store.space import ORPHAN_SECONDS, RESERVE_BYTES, forecast, orphans, room_for

GB = 1 << 30


def test_an_upload_needs_its_bytes_a_margin_and_a_reserve() -> None:
    just = int(1.1 * GB) + RESERVE_BYTES

    assert room_for(GB, Quota(free=just, total=15 * GB), place="Drive").is_enough
    assert not room_for(GB, Quota(free=just - 1, total=15 * GB), place="Drive").is_enough


def test_a_full_store_says_what_to_do() -> None:
    text = room_for(GB, Quota(free=0, total=15 * GB), place="Drive").text

    assert "1.00 GB to store, 0.00 GB free" in text
    assert "Training goes on" in text
    assert "free 1.16 GB there" in text


def test_where_no_limit_is_known_there_is_room() -> None:
    assert room_for(10**15, Quota(free=None), place="bucket").is_enough
    assert forecast(10**15, 3, Quota(free=None), place="bucket").is_enough


def test_a_forecast_counts_what_stays_and_one_on_its_way() -> None:
    room = forecast(int(0.92 * GB), 2, Quota(free=int(4.1 * GB), total=15 * GB), place="Drive")

    assert room.text == "Drive: 3 × 0.92 GB of your 15 GB; 4.10 GB free"
    assert room.is_enough
    assert not forecast(int(0.92 * GB), 2, Quota(free=3 * GB, total=15 * GB), place="Drive").is_enough


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
