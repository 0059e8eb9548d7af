"""Is there room, will there be, and what may be swept: pure answers for guard, forecast and sweeper."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from runner.figures import size
from runner.store.base import Quota, Stat

MARGIN = 1.1  # names, records and rounding on top of the bytes themselves
RESERVE_BYTES = 64 << 20  # never taken: the log must always find room for its records
IN_FLIGHT = 1  # a new checkpoint arrives before an old one may go
ORPHAN_SECONDS = 3600.0  # younger ones may be on their way into a COMMIT
RATE_SECONDS = 3600.0  # over less nobody can tell a rate: the first checkpoints of a job come without any going


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
        return Room(is_enough=True, needed_bytes=needed, text=f"{place}: room for {size(new_bytes)}")
    text = (
        f"{place}: {size(new_bytes)} to store, {size(quota.free)} free. What trains here goes on, uploads wait: "
        f"free {size(needed - quota.free)} there (empty the bin too), or choose another --store"
    )
    return Room(is_enough=False, needed_bytes=needed, text=text)


def forecast(checkpoint_bytes: int, kept: int, quota: Quota, *, place: str, promised: int = 0) -> Room:
    """Asked when a job is queued: `kept` checkpoints stay at a time, and one more while it is on its way.

    `promised` bytes of what is free are for jobs queued before it.
    """
    needed = int(checkpoint_bytes * (kept + IN_FLIGHT) * MARGIN) + RESERVE_BYTES
    text = f"{kept + IN_FLIGHT} × {size(checkpoint_bytes)}"
    if quota.free is None:
        return Room(is_enough=True, needed_bytes=needed, text=f"{text} in {place}, whose limit is not known")
    whole = f" in {place}" if quota.total is None else f" of your {size(quota.total)} in {place}"
    is_enough = quota.free - promised >= needed
    return Room(is_enough=is_enough, needed_bytes=needed, text=f"{text}{whole}; {size(quota.free)} free")


def full_at(samples: Sequence[tuple[float, int]]) -> float | None:
    """When the room ends at the present rate, in seconds since 1970, from (time, free bytes), oldest first.

    None when nobody can tell: less than an hour was seen, or the room does not shrink in both halves of it. What grows
    only until the retention sets in is no rate.
    """
    if len(samples) < 3 or samples[-1][0] - samples[0][0] < RATE_SECONDS:
        return None
    first, middle, (now, free) = samples[0], samples[len(samples) // 2], samples[-1]
    rate = min(_bytes_per_second(first, middle), _bytes_per_second(middle, (now, free)))
    return now + free / rate if rate > 0 else None


def _bytes_per_second(before: tuple[float, int], after: tuple[float, int]) -> float:
    """Taken between two moments; nothing where the clock stood still or went back."""
    seconds = after[0] - before[0]
    return (before[1] - after[1]) / seconds if seconds > 0 else 0.0


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
