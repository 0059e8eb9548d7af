"""What a living daemon tells the screen beside the database: cards, room in the store, uploads under way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from runner.trouble import Cause, Trouble
from wake2vec.contract.files import read_json, write_json

NOTE_SECONDS = 0.5
MISSING = (
    "what was written last is missing: runner.db-wal, which goes with it, was deleted, or it is an older copy. What "
    "the store knows comes back by itself; see whether a job, a hold or a setting is gone, and ask for that again"
)


@dataclass(frozen=True, kw_only=True)
class CardNote:
    """A GPU as the driver shows it."""

    index: int
    name: str
    total_mib: int
    used_mib: int


@dataclass(frozen=True, kw_only=True)
class UploadNote:
    """An object on its way to the store, or from it; times in seconds since 1970."""

    job: str
    name: str
    done_bytes: int
    size: int
    started_at: float
    is_coming: bool = False

    @property
    def told(self) -> str:
        return f"{'fetching' if self.is_coming else 'sending'} {self.job} {self.name}"


@dataclass(frozen=True, kw_only=True)
class DaemonNote:
    """Everything may be absent: the screen shows what is known."""

    written_at: float
    place: str = ""  # the store in words
    free_bytes: int | None = None
    total_bytes: int | None = None
    full_at: float | None = None  # when that room ends at the present rate
    stop_by: float | None = None
    cards: tuple[CardNote, ...] = ()
    uploads: tuple[UploadNote, ...] = ()
    troubles: tuple[Trouble, ...] = ()  # as they stand now
    away: tuple[str, ...] = ()  # jobs whose trainers live on other hosts
    newest_event: int = 0  # of the database: by it a later start sees that it lost what was written last


@dataclass(frozen=True, kw_only=True)
class LostNote:
    """What the store has lost of what this home brought there; stands in the home until it is there again."""

    job: str  # "" is the whole store
    loss: str  # a Loss of runner.errors
    problem: str
    remedy: str
    since_at: float


def write_lost(home: Path, notes: Sequence[LostNote]) -> None:
    write_json(home / "lost.json", [asdict(note) for note in notes])


def read_lost(home: Path) -> list[LostNote]:
    """Empty while everything is known to be there, or nobody has looked."""
    tables = read_json(home / "lost.json")
    try:
        return [LostNote(**table) for table in tables] if isinstance(tables, list) else []
    except TypeError:
        return []


class Sending:
    """Tells of one upload while it goes on; writes seldom enough to cost nothing."""

    def __init__(self, home: Path, upload: UploadNote, clock: Callable[[], float]) -> None:
        self._path, self._upload, self._clock = home / "upload.json", upload, clock
        self._before, self._last, self._written_at = 0, 0, -1e9

    def report(self, sent_of_object: int) -> None:
        """`sent_of_object` starts anew with each object of the upload."""
        if sent_of_object < self._last:
            self._before += self._last
        self._last = sent_of_object
        if self._clock() - self._written_at >= NOTE_SECONDS:
            self._written_at = self._clock()
            done = min(self._before + sent_of_object, self._upload.size)
            with suppress(OSError):
                write_json(self._path, asdict(replace(self._upload, done_bytes=done)), durable=False)

    def end(self) -> None:
        forget_upload(self._path.parent)


def forget_upload(home: Path) -> None:
    """Also what a killed daemon left."""
    with suppress(OSError):
        (home / "upload.json").unlink()


def read_upload(home: Path) -> UploadNote | None:
    """The upload that goes on; None when there is none."""
    table = read_json(home / "upload.json")
    try:
        return UploadNote(**table) if isinstance(table, dict) else None
    except TypeError:
        return None


def note_path(home: Path) -> Path:
    return home / "work.json"


def forget_note(home: Path) -> None:
    """Of a database that is no longer the one here."""
    note_path(home).unlink(missing_ok=True)


def write_note(home: Path, note: DaemonNote) -> None:
    """Not fsynced: it says something only while the daemon lives."""
    write_json(note_path(home), asdict(note), durable=False)


def read_note(home: Path) -> DaemonNote | None:
    """None when there is none, or it is not one."""
    table = read_json(note_path(home))
    if not isinstance(table, dict):
        return None
    try:
        cards = tuple(CardNote(**item) for item in table.pop("cards", ()))
        uploads = tuple(UploadNote(**item) for item in table.pop("uploads", ()))
        troubles = tuple(Trouble(**item | {"cause": Cause(item["cause"])}) for item in table.pop("troubles", ()))
        table["away"] = tuple(table.get("away", ()))
        return DaemonNote(cards=cards, uploads=uploads, troubles=troubles, **table)
    except (TypeError, KeyError, ValueError):
        return None
