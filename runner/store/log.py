"""The append-only log of a job in a store: a chain of records in which every append has exactly one winner."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from runner.errors import Fenced, NotStored, StoreBusy
from runner.store.base import Store
from runner.store.records import CARRY_EVERY, Kind, Record, condense, is_done, is_released, lease_epoch


class Log:
    """One chain. `records` is what was last read; nothing else is trusted, and no clock decides anything here."""

    def __init__(
        self, store: Store, records: list[Record], *, name: str, holder: str, now: Callable[[], float] = time.time
    ) -> None:
        self.store = store
        self.records = records
        self.name = name
        self.holder = holder
        self._now = now
        self.tail_id = records[0].log  # where the newest record lies
        self.carrying_id: str | None = None  # the newest record known that a reader may start at
        self.seen: dict[str, str] = {}  # by id, the md5 of what was read
        self._tried: set[str] = set()  # nonces of appends whose answer was lost

    @classmethod
    def begin(
        cls,
        store: Store,
        *,
        name: str,
        kind: Kind,
        payload: dict[str, Any],
        holder: str,
        first_id: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> Log:
        """Create the first record, or find that somebody has. The payload gains `head_id`, where the heartbeat lives.

        `name` is the folder for people: records are called `<name>/log/000001.….json`.
        """
        made, next_id, head_id = store.new_ids([_record_name(name, 0), _record_name(name, 1), head_name(name)])
        first_id = first_id or made
        record = Record(
            log=first_id, seq=0, kind=kind, epoch=0, nonce=secrets.token_hex(8), holder=holder, written_at=now(),
            payload={**payload, "name": name, "head_id": head_id}, next_id=next_id,
        )  # fmt: skip
        store.create(first_id, record.to_bytes(), name=_record_name(name, 0))
        return cls.open(store, first_id, holder=holder, now=now)

    @classmethod
    def open(
        cls,
        store: Store,
        first_id: str,
        *,
        holder: str,
        hint: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> Log:
        """Read the log to its tail. `hint` is the id of a carrying record to start from; a wrong one costs only time.

        Raises NotStored when there is no such log.
        """
        start = _carrying(store, first_id, hint) or _read(store, first_id)
        if start is None:
            raise NotStored(f"{first_id}: there is no log of that id in {store.properties.place}")
        records = [*(start.carried or ()), replace(start, carried=None)]
        log = cls(store, records, name=records[0].payload["name"], holder=holder, now=now)
        if start.carried and hint:
            log.carrying_id = log.tail_id = hint
        log.refresh()
        return log

    @property
    def first_id(self) -> str:
        return self.records[0].log

    @property
    def head_id(self) -> str:
        return str(self.records[0].payload["head_id"])

    def refresh(self) -> None:
        """Walk to the tail as it is now."""
        while (found := _read(self.store, id := self.records[-1].next_id, self.seen)) is not None:
            self.seen = {id: self.seen[id], self.first_id: self.seen.get(self.first_id, "")}
            self._add(found)

    def _add(self, record: Record) -> None:
        self.tail_id = self.records[-1].next_id
        if record.carried is not None:
            self.carrying_id = self.tail_id
        self.records.append(replace(record, carried=None))

    def append(self, kind: Kind, payload: dict[str, Any], *, epoch: int) -> Record:
        """Add a record under the lease of this epoch; a LEASE is added under the epoch after the one in force.

        Raises Fenced when the lease is another's, or another's record took the place. After StoreUnavailable the record
        may or may not be there: the same call again finds it or adds it, never both.
        """
        while True:
            self.refresh()
            if (landed := self._landed(kind, payload, epoch)) is not None:
                return landed
            self._check(kind, epoch)
            record, is_mine = self._try(kind, payload, epoch)
            if is_mine:
                self._tried.clear()
                return record
            if record.nonce not in self._tried:
                raise self._fenced(record)

    def append_shared(
        self, kind: Kind, payload: dict[str, Any], *, unless: Callable[[list[Record]], Record | None]
    ) -> Record:
        """Add a record to a log that many write, unless what is there already will do; returns the one that counts."""
        while True:
            self.refresh()
            if (found := unless(self.records)) is not None:
                return found
            record, is_mine = self._try(kind, payload, epoch=0)
            if is_mine:
                return record

    def _landed(self, kind: Kind, payload: dict[str, Any], epoch: int) -> Record | None:
        """This very append, if an earlier try of it got through although its answer was lost."""
        for record in reversed(self.records):
            if record.nonce in self._tried and (record.kind, record.payload, record.epoch) == (kind, payload, epoch):
                return record
        return None

    def check(self, epoch: int) -> None:
        """Raises Fenced unless the lease of this epoch is in force, by what was last read."""
        if lease_epoch(self.records) != epoch or is_released(self.records):
            raise self._fenced(self.records[-1])

    def _check(self, kind: Kind, epoch: int) -> None:
        """The invariants of the log, checked against its tail before anything is written."""
        if is_done(self.records):
            raise Fenced(f"{self.name}: the job is done by {self.records[-1].holder}; nothing can be added to its log")
        if kind != "LEASE":
            self.check(epoch)
        elif epoch != lease_epoch(self.records) + 1:
            raise self._fenced(self.records[-1])

    def _try(self, kind: Kind, payload: dict[str, Any], epoch: int) -> tuple[Record, bool]:
        """Create the record behind the tail; returns the record that is there now, and whether it is this one."""
        tail = self.records[-1]
        seq = tail.seq + 1
        record = Record(
            log=self.first_id, seq=seq, kind=kind, epoch=epoch, nonce=secrets.token_hex(8), holder=self.holder,
            written_at=self._now(), payload=payload, next_id=self.store.new_ids([_record_name(self.name, seq + 1)])[0],
            carried=tuple(condense(self.records)) if seq % CARRY_EVERY == 0 else None,
        )  # fmt: skip
        self._tried.add(record.nonce)
        if not self.store.create(tail.next_id, record.to_bytes(), name=_record_name(self.name, seq)):
            self.refresh()
        else:
            self._add(record)
        there = next((found for found in self.records if found.seq == seq), None)
        if there is None:
            raise StoreBusy(f"{tail.next_id}: taken by a record that cannot be read yet")
        return there, there.nonce == record.nonce

    def _fenced(self, by: Record) -> Fenced:
        return Fenced(
            f"{self.name}: {by.holder} has taken the job over (epoch {lease_epoch(self.records)}); this runner stops"
        )


def _record_name(name: str, seq: int) -> str:
    return f"{name}/log/{seq:06d}.*.json" if name else f"log/{seq:06d}.*.json"


def head_name(name: str) -> str:
    return f"{name}/head.*.json" if name else "head.*.json"


def _read(store: Store, id: str, seen: dict[str, str] | None = None) -> Record | None:
    body = store.read(id)
    if body is not None and seen is not None:
        seen[id] = hashlib.md5(body, usedforsecurity=False).hexdigest()
    return None if body is None else Record.from_bytes(body, f"{store.properties.place}: {id}")


def _carrying(store: Store, first_id: str, hint: str | None) -> Record | None:
    """The record that the hint names, if it is one of this log to start from."""
    found = _read(store, hint) if hint else None
    return found if found is not None and found.log == first_id and found.carried else None
