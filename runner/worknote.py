"""What a living daemon tells the screen beside the database: cards, room in the store, uploads under way."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from wake2vec.rundir import read_json, write_json


@dataclass(frozen=True, kw_only=True)
class CardNote:
    """A GPU as the driver shows it."""

    index: int
    name: str
    total_mib: int
    used_mib: int


@dataclass(frozen=True, kw_only=True)
class UploadNote:
    """An object on its way to the store; times in seconds since 1970."""

    job: str
    name: str
    done_bytes: int
    size: int
    started_at: float


@dataclass(frozen=True, kw_only=True)
class WorkNote:
    """Everything may be absent: the screen shows what is known."""

    written_at: float
    place: str = ""  # the store in words
    free_bytes: int | None = None
    total_bytes: int | None = None
    stop_by: float | None = None
    cards: tuple[CardNote, ...] = ()
    uploads: tuple[UploadNote, ...] = ()
    problem: str = ""  # of the store, as it stands now
    remedy: str = ""


def note_path(home: Path) -> Path:
    return home / "work.json"


def write_note(home: Path, note: WorkNote) -> None:
    """Not fsynced: it says something only while the daemon lives."""
    write_json(note_path(home), asdict(note), durable=False)


def read_note(home: Path) -> WorkNote | None:
    """None when there is none, or it is not one."""
    table = read_json(note_path(home))
    if not isinstance(table, dict):
        return None
    try:
        cards = tuple(CardNote(**item) for item in table.pop("cards", ()))
        uploads = tuple(UploadNote(**item) for item in table.pop("uploads", ()))
        return WorkNote(cards=cards, uploads=uploads, **table)
    except TypeError:
        return None
