"""Who works on a job: a LEASE in its log fences everyone before, a heartbeat in HEAD shows that the holder lives.

Silence alone proves nothing, since a paused runner wakes up and writes: each lease has a number, and what is written
under an older one is refused (fencing tokens; Kleppmann, "How to do distributed locking", 2016).
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from typing import Any

from runner.errors import Fenced, LeaseHeld
from runner.settings import LEASE_SECONDS
from runner.store.base import Store
from runner.store.log import Log, head_name
from runner.store.records import Record, is_done, is_released, lease, lease_epoch

BEAT_SECONDS = 45.0


@dataclass(frozen=True, kw_only=True)
class Beat:
    """The HEAD document: a sign of life, and pointers that only save time. The log decides."""

    holder: str
    epoch: int
    count: int
    nonce: str
    carrying_id: str | None = None  # where a reader of the log may start
    note: dict[str, Any] | None = None  # for people: host, step, what it is doing

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True).encode()


def read_beat(log: Log) -> tuple[Beat | None, str | None]:
    """The HEAD of a log as it is, and its tag."""
    return read_beat_at(log.store, log.head_id)


def read_beat_at(store: Store, head_id: str) -> tuple[Beat | None, str | None]:
    """A HEAD that is not there, or that nobody can read, counts as silent."""
    found = store.read_head(head_id)
    if found is None:
        return None, None
    try:
        return Beat(**json.loads(found[0])), found[1]
    except (ValueError, TypeError):
        return None, found[1]


class Watch:
    """How long a rival has been silent, on the monotonic clock of whoever looks; no clocks are compared."""

    def __init__(self) -> None:
        self._content: object = None
        self._since: float | None = None

    def look(self, content: object, at: float) -> float:
        """Seconds for which the content has been the same, as far as this observer saw."""
        if self._since is None or content != self._content:
            self._content, self._since = content, at
        return at - self._since


class Lease:
    """The right to write to a job's log, until somebody takes it."""

    def __init__(self, log: Log, epoch: int) -> None:
        self.log = log
        self.epoch = epoch
        self._count = 0

    def check(self) -> None:
        """Raises Fenced when another runner has taken over; costs one read."""
        self.log.refresh()
        self.log.check(self.epoch)

    def beat(self, note: dict[str, Any] | None = None) -> None:
        """Show that this runner lives. Raises Fenced when HEAD carries a newer epoch; call every BEAT_SECONDS."""
        self._count += 1
        log, nonce = self.log, secrets.token_hex(8)
        beat = Beat(
            holder=log.holder, epoch=self.epoch, count=self._count, nonce=nonce, carrying_id=log.carrying_id, note=note
        )
        for _ in range(8):  # tags move by themselves: a refusal is a rival only when HEAD says so
            current, tag = read_beat(self.log)
            if current is not None and current.nonce == beat.nonce:
                return
            if current is not None and current.epoch > self.epoch:
                raise Fenced(f"{self.log.name}: {current.holder} has taken the job over; this runner stops")
            if self.log.store.swap_head(self.log.head_id, beat.to_bytes(), tag, name=head_name(self.log.name)):
                return
        self.check()  # HEAD could not be moved; the log knows whether that matters

    def release(self) -> None:
        """Give the job back, so that the next runner need not wait; a job that is done was given back by that."""
        self.log.refresh()
        if not is_done(self.log.records):
            self.log.append("RELEASE", {}, epoch=self.epoch)


def acquire(log: Log, watch: Watch, *, at: float, take_over: bool = False, ttl_seconds: float = LEASE_SECONDS) -> Lease:
    """Take the job, at once when it is free or was this home's own; otherwise only when its holder has fallen silent.

    Keep the `watch` and call again until it succeeds: raises LeaseHeld with the seconds that are left. `at` is the
    monotonic time of this call. `take_over` is a person's word that the holder is gone.
    """
    log.refresh()
    if not take_over:
        _respect(log, watch, at, ttl_seconds)
    epoch = lease_epoch(log.records) + 1
    try:
        log.append("LEASE", {}, epoch=epoch)
    except Fenced as error:
        raise _held(log, lease(log.records), ttl_seconds) from error
    return Lease(log, epoch)


def _respect(log: Log, watch: Watch, at: float, ttl_seconds: float) -> None:
    held = lease(log.records)
    if held is None or is_released(log.records) or held.holder == log.holder:
        return
    beat, _ = read_beat(log)
    silent = watch.look((beat, log.records[-1].seq), at)
    if silent < ttl_seconds:
        silent = max(silent, _silent_before(log))
    if silent < ttl_seconds:
        raise _held(log, held, ttl_seconds - silent)


def _silent_before(log: Log) -> float:
    """For how long neither heartbeat nor log were written before anybody looked, if the store's own clock can tell."""
    said = [log.store.silence(id) for id in (log.head_id, log.tail_id)]
    return min((seconds or 0.0 for seconds in said), default=0.0)


def _held(log: Log, held: Record | None, seconds_left: float) -> LeaseHeld:
    holder = held.holder if held else "another runner"
    return LeaseHeld(
        f"{log.name}: {holder} is at work on this job; wait {seconds_left:.0f} s to see whether it still lives, "
        "or use `wake2vec-runner start --take-over` if you know that it does not",
        holder=holder,
        seconds_left=seconds_left,
    )
