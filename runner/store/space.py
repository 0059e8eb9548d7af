"""Is there room, will there be, and what may be swept: pure answers for guard, forecast and sweeper."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from runner.store.base import Quota, Stat

MARGIN = 1.1  # names, records and rounding on top of the bytes themselves
RESERVE_BYTES = 64 << 20  # never taken: the log must always find room for its records
IN_FLIGHT = 1  # a new checkpoint arrives before an old one may go
ORPHAN_SECONDS = 3600.0  # younger ones may be on their way into a COMMIT


@dataclass(frozen=True, kw_only=True)
class Room:
    """Whether an upload fits, in numbers and in words."""

    is_enough: bool
    needed_bytes: int
    text: str


def room_for(new_bytes: int, quota: Quota, *, place: str) -> Room:
    """Asked before every upload. Where no limit is known there is always room."""
    needed = int(new_bytes * MARGIN) + RESERVE_BYTES
    if quota.free is None or quota.free >= needed:
        return Room(is_enough=True, needed_bytes=needed, text=f"{place}: room for {gigabytes(new_bytes)}")
    text = (
        f"{place}: {gigabytes(new_bytes)} to store, {gigabytes(quota.free)} free. Training goes on here, uploads wait: "
        f"free {gigabytes(needed - quota.free)} there (empty the bin too), or choose another --store"
    )
    return Room(is_enough=False, needed_bytes=needed, text=text)


def forecast(checkpoint_bytes: int, kept: int, quota: Quota, *, place: str) -> Room:
    """Asked when a job is queued: `kept` checkpoints stay at a time, and one more while it is on its way."""
    needed = int(checkpoint_bytes * (kept + IN_FLIGHT) * MARGIN) + RESERVE_BYTES
    text = f"{place}: {kept + IN_FLIGHT} × {gigabytes(checkpoint_bytes)}"
    if quota.free is None:
        return Room(is_enough=True, needed_bytes=needed, text=f"{text}; its limit is not known")
    whole = "" if quota.total is None else f" of your {gigabytes(quota.total)}"
    return Room(
        is_enough=quota.free >= needed, needed_bytes=needed, text=f"{text}{whole}; {gigabytes(quota.free)} free"
    )


def orphans(found: Iterable[Stat], named: Collection[str], *, now: float) -> list[Stat]:
    """Objects that no record names and that are too old to be on their way into one.

    `found` must come from a folder of objects (`jobs/<job>/checkpoints`), never of records; `now` is in seconds since
    1970 and only compared with ages of an hour, so that clocks may differ.
    """
    return [
        stat
        for stat in found
        if stat.id not in named and stat.created_at is not None and now - stat.created_at > ORPHAN_SECONDS
    ]


def gigabytes(size: int) -> str:
    """As Google counts, 15 GB being 15 · 2^30 bytes: two digits below ten, none above."""
    value = size / (1 << 30)
    return f"{value:.2f} GB" if value < 10 else f"{value:.0f} GB"
