"""What this home knows of a store, kept beside the queue: its root log and every job's log, as last seen."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.errors import Damaged
from runner.store.log import Log
from runner.store.names import log_name
from runner.store.records import Record
from wake2vec.contract.files import make_directory, read_json, write_json

ROOT = ""  # the name of the root log


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A log as it was: whatever stands in it was in the store once."""

    records: list[Record]
    tail_id: str

    @property
    def tail(self) -> Record:
        return self.records[-1]


class KnownLogs:
    """Written after the store has shown the same, so that it is behind the store at a kill, and never ahead of it."""

    def __init__(self, home: Path, place: str) -> None:
        self._folder = home / "stores" / hashlib.sha256(place.encode()).hexdigest()[:16]
        self._written: dict[str, str] = {}

    def read(self, name: str) -> Copy | None:
        """The copy of the log of that name (`jobs/a`; ROOT for the root log); None when there is none to be used."""
        table: Any = read_json(self._path(name))
        try:
            records = [Record.from_bytes(json.dumps(record).encode(), name) for record in table["records"]]
            return Copy(records=records, tail_id=str(table["tail_id"])) if records else None
        except (Damaged, KeyError, TypeError):
            return None

    def keep(self, log: Log) -> None:
        if self._written.get(log.name) == log.tail_id:
            return
        path = self._path(log.name)
        with suppress(OSError):  # a full disk: what is known stays behind, and is only written to free room
            make_directory(path.parent)
            write_json(path, {"tail_id": log.tail_id, "records": [asdict(record) for record in log.records]})
            self._written[log.name] = log.tail_id

    def jobs(self) -> list[str]:
        return sorted(path.stem for path in (self._folder / log_name("")).glob("*.json"))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name or 'root'}.json"
