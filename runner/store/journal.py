"""Ids set aside before the first byte is sent, so that a restarted process continues instead of storing twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runner.store.base import Store
from wake2vec.contract.files import read_json, write_json


def take_ids(store: Store, place: Path, names: Mapping[str, str]) -> dict[str, str]:
    """An id for each key, the journalled one where there is one; new ones are durable there before this returns."""
    known = _read(place)
    missing = [key for key in names if key not in known]
    if missing:
        fresh = store.new_ids([names[key] for key in missing])
        known |= dict(zip(missing, fresh, strict=True))
        write_json(place, known)
    return {key: known[key] for key in names}


def set_aside(folder: Path) -> set[str]:
    """Every id that some unfinished upload of this home has set aside."""
    return {id for place in folder.glob("*.json") for id in _read(place).values()}


def drop_id(place: Path, key: str) -> None:
    """Forget an id that turned out to be unusable."""
    known = _read(place)
    if known.pop(key, None) is not None:
        write_json(place, known)


def _read(place: Path) -> dict[str, str]:
    found = read_json(place)
    return {str(key): str(id) for key, id in found.items()} if isinstance(found, dict) else {}
