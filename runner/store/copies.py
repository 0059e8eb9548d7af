"""Copies of the queue's database in a store: numbered, immutable, and found through the HEAD of the root log."""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.errors import Damaged, StoreBusy
from runner.store import journal as journals
from runner.store.log import Log, head_name
from runner.store.publish import forget, publish_files
from runner.store.records import StoredFile
from runner.store.space import orphans

KEPT = 5
MOST_BYTES = 512 << 20  # of a database, packed or not: a queue of years has a tenth of it
FOLDER = "database"
FILE = "runner.db.gz"
TRIES = 8


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One copy. `number` counts for all homes that share the store, so it is the order; no clock is."""

    number: int
    holder: str  # the home that it is of
    file: StoredFile  # packed
    made_at: float  # seconds since 1970, for people


def list_generations(root: Log) -> list[Generation]:
    """Oldest first; none where the index is missing or nobody can read it."""
    return _read_index(root)[0]


def _read_index(root: Log) -> tuple[list[Generation], str | None]:
    found = root.store.read_head(root.head_id)
    if found is None:
        return [], None
    try:
        tables = json.loads(found[0])["generations"]
        return sorted((_generation(table) for table in tables), key=lambda one: one.number), found[1]
    except (ValueError, KeyError, TypeError):
        return [], found[1]


def _generation(table: dict[str, Any]) -> Generation:
    file = table["file"]
    return Generation(
        number=int(table["number"]),
        holder=str(table["holder"]),
        file=StoredFile(id=str(file["id"]), size=int(file["size"]), sha256=str(file["sha256"]), md5=str(file["md5"])),
        made_at=float(table["made_at"]),
    )


def kept(every: Sequence[Generation], holder: str) -> list[Generation]:
    """This home's newest five and the newest five of all others: homes that share a store never push each other out."""
    own = [one for one in every if one.holder == holder][-KEPT:]
    foreign = [one for one in every if one.holder != holder][-KEPT:]
    return sorted(own + foreign, key=lambda one: one.number)


def publish_generation(root: Log, database: Path, *, journal: Path, now: float) -> Generation:
    """Store a sound, closed copy of the database as the newest generation, and delete those that are not kept.

    A kill in between leaves an orphan and no harm: the index is swapped as a whole. Raises StoreUnavailable.
    """
    packed = database.with_name(FILE)
    with open(database, "rb") as plain, gzip.GzipFile(packed, "wb", compresslevel=6, mtime=0) as file:
        shutil.copyfileobj(plain, file)
    folder = f"{FOLDER}/{_next_number(list_generations(root)):06d}"
    stored = publish_files(root.store, {FILE: packed}, folder=folder, known={}, journal=journal)[FILE]
    for _ in range(TRIES):  # another home may be at it too, and tags move by themselves
        every, tag = _read_index(root)
        made = Generation(number=_next_number(every), holder=root.holder, file=stored, made_at=now)
        stay = kept([*every, made], root.holder)
        body = json.dumps({"format": 1, "generations": [asdict(one) for one in stay]}).encode()
        if root.store.swap_head(root.head_id, body, tag, name=head_name(root.name)):
            forget(journal, folder)
            if passed := [one.file.id for one in every if one not in stay]:
                root.store.delete(*passed)
            return made
    raise StoreBusy(f"{root.store.properties.place}: the index of database copies is being written by another runner")


def _next_number(every: Sequence[Generation]) -> int:
    return max((one.number for one in every), default=0) + 1


def fetch_generation(root: Log, generation: Generation, into: Path) -> Path:
    """Bring a copy here and unpack it; returns the database, of which nothing but the hash is proved yet.

    Raises NotStored, Damaged, StoreUnavailable.
    """
    file, packed = generation.file, into / f"{generation.number}.gz"
    if file.size > MOST_BYTES:
        raise Damaged(f"{file.id}: says that it has {file.size:,} bytes; no queue has")
    try:
        root.store.get(file.id, packed, digest=file.digest)
        return _unpack(packed, into / f"{generation.number}.db")
    except (ValueError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise Damaged(f"{file.id}: cannot be unpacked ({error})") from error


def _unpack(packed: Path, target: Path) -> Path:
    size = 0
    with gzip.open(packed, "rb") as file, open(target, "wb") as plain:
        while chunk := file.read(1 << 20):
            size += len(chunk)
            if size > MOST_BYTES:
                raise ValueError("it grows beyond any queue")
            plain.write(chunk)
    return target


def sweep_generations(root: Log, *, journal: Path, now: float) -> None:
    """Delete copies that no index names and that are too old to be on their way into one."""
    named = {one.file.id for one in list_generations(root)} | journals.set_aside(journal)
    if left := [stat.id for stat in orphans(root.store.find(FOLDER), named, now=now)]:
        root.store.delete(*left)
