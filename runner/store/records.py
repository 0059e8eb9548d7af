"""Records of a log, and what a list of them says: pure, and the only reading of the truth about a job."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, Literal, Self, TypeVar

from runner.errors import Damaged
from runner.states import State, as_wished
from wake2vec.contract.files import FileDigest
from wake2vec.contract.manifest import MANIFEST
from wake2vec.contract.order import InputFile

Kind = Literal["ROOT", "JOB", "GENESIS", "LEASE", "COMMIT", "REGIME", "RELEASE", "DONE"]
OF_A_LEASE: tuple[Kind, ...] = ("LEASE", "RELEASE", "DONE")  # its beginning, and its ends
FORMAT = 1
CARRY_EVERY = 32  # a record with this many before it carries what still matters, so that a reader may start there


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """Where a file lies in a store, and what it must be."""

    id: str
    size: int
    sha256: str
    md5: str

    @property
    def digest(self) -> FileDigest:
        return FileDigest(size=self.size, sha256=self.sha256, md5=self.md5)

    @classmethod
    def of(cls, id: str, digest: FileDigest) -> StoredFile:
        return cls(id=id, **asdict(digest))


@dataclass(frozen=True, kw_only=True)
class Body:
    """What a record of one kind says. Read leniently: a newer version may say more, an older one said less."""

    def to_payload(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_payload(cls, payload: dict[str, Any]) -> Self:
        """Raises KeyError or TypeError where it is none."""
        said = {one.name: payload[one.name] for one in fields(cls) if one.name in payload}
        return cls(**{name: _FIELDS[name](value) if name in _FIELDS else value for name, value in said.items()})


def _stored_files(tables: dict[str, Any]) -> dict[str, StoredFile]:
    return {name: StoredFile(**table) for name, table in tables.items()}


# what is more than a number, a word or a table of such
_FIELDS: dict[str, Callable[[Any], Any]] = dict.fromkeys(("stored_inputs", "files", "parts"), _stored_files) | {
    "manifest": lambda table: StoredFile(**table),
    "inputs": lambda tables: [InputFile(**table) for table in tables],
}


@dataclass(frozen=True, kw_only=True)
class Genesis(Body):
    """What the job is, with all that another machine needs to run it."""

    fingerprint: str
    job: dict[str, Any] = field(default_factory=dict)  # the JobSpec, as JSON
    inputs: list[InputFile] = field(default_factory=list)
    stored_inputs: dict[str, StoredFile] = field(default_factory=dict)  # by sha256
    created_at: float = 0.0

    def to_payload(self) -> dict[str, Any]:
        return asdict(self) | {"inputs": [item.model_dump() for item in self.inputs]}


@dataclass(frozen=True, kw_only=True)
class JobEntry(Body):
    """Of a root log: where the log of a job begins."""

    job: str
    fingerprint: str
    genesis_id: str
    head_id: str


@dataclass(frozen=True, kw_only=True)
class Commit(Body):
    """A durable checkpoint."""

    step: int
    kind: str = ""  # rolling, milestone or final
    attempt: int = 0
    manifest: StoredFile
    parts: dict[str, StoredFile]

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts.values())

    @property
    def object_ids(self) -> list[str]:
        """The manifest goes first: without it a half-deleted checkpoint is none."""
        return [self.manifest.id, *(part.id for part in self.parts.values())]


@dataclass(frozen=True, kw_only=True)
class Done(Body):
    """The job has come to its end, and all that it left lies in these files."""

    files: dict[str, StoredFile]
    step: int
    best_step: int | None = None


@dataclass(frozen=True, kw_only=True)
class Note(Body):
    """A REGIME that the sync loop writes and reads: something about the job that a later session must know."""

    WHAT: ClassVar[str]

    def to_payload(self) -> dict[str, Any]:
        return {"what": self.WHAT, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class StateNote(Note):
    """How a job stands that neither waits nor runs; empty once it does again."""

    WHAT = "state"
    state: str = ""
    reason: str = ""
    remedy: str = ""

    @property
    def stands(self) -> State:
        return as_wished(State(self.state or State.QUEUED), self.remedy)


@dataclass(frozen=True, kw_only=True)
class VocabularyNote(Note):
    WHAT = "vocab"
    files: dict[str, StoredFile]  # by their paths below the run directory


@dataclass(frozen=True, kw_only=True)
class SourceNote(Note):
    """The checkpoint that P2 starts from, chosen once."""

    WHAT = "source"
    job: str
    step: int
    manifest_sha256: str


@dataclass(frozen=True, kw_only=True)
class QuarantineNote(Note):
    """A checkpoint that no attempt gets beyond."""

    WHAT = "quarantine"
    step: int
    manifest_sha256: str


AnyNote = TypeVar("AnyNote", bound=Note)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One entry of an append-only chain; `next_id` is the only place where its successor can be."""

    log: str  # id of the first record of this log
    seq: int
    kind: Kind
    epoch: int
    nonce: str
    payload: dict[str, Any]
    next_id: str
    written_at: float  # seconds since 1970 by the writer's clock; for people, never for decisions
    holder: str
    carried: tuple[Record, ...] | None = None
    format: int = FORMAT

    @cached_property
    def genesis(self) -> Genesis:
        return Genesis.from_payload(self.payload)

    @cached_property
    def job(self) -> JobEntry:
        return JobEntry.from_payload(self.payload)

    @cached_property
    def commit(self) -> Commit:
        return Commit.from_payload(self.payload)

    @cached_property
    def done(self) -> Done:
        return Done.from_payload(self.payload)

    @property
    def files(self) -> dict[str, StoredFile]:
        """The objects that it names, by file name; texts by their sha256."""
        if self.kind == "COMMIT":
            return {**self.commit.parts, MANIFEST: self.commit.manifest}
        return _stored_files(self.payload.get("stored_inputs" if self.kind == "GENESIS" else "files", {}))

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, body: bytes, place: str) -> Record:
        """Raises Damaged when the body is not a record this version understands."""
        try:
            return cls._from_table(json.loads(body))
        except (ValueError, TypeError, AttributeError) as error:
            said = f"is not a record of a log ({error}); was it changed by hand, or by a newer version?"
            raise Damaged(f"{place}: {said}") from error

    @classmethod
    def _from_table(cls, table: dict[str, Any]) -> Record:
        carried = table.pop("carried", None)
        record = cls(**table, carried=None if carried is None else tuple(cls._from_table(dict(old)) for old in carried))
        if record.format != FORMAT:
            raise ValueError(f"format {record.format}")
        return record


def lease(records: Sequence[Record]) -> Record | None:
    """The newest LEASE, released or not."""
    return _newest(records, "LEASE")


def lease_epoch(records: Sequence[Record]) -> int:
    """The fencing number in force; 0 before the first lease."""
    return newest.epoch if (newest := lease(records)) else 0


def is_released(records: Sequence[Record]) -> bool:
    """Whether nobody holds the job: never leased, or the newest lease was given back, by a RELEASE or by the end."""
    last = _newest(records, *OF_A_LEASE)
    return last is None or last.kind != "LEASE"


def commits(records: Sequence[Record]) -> list[Record]:
    """Durable checkpoints in the order of the log: a step may repeat when a later checkpoint could not be read."""
    return [record for record in records if record.kind == "COMMIT"]


def manifests(records: Sequence[Record]) -> set[str]:
    """sha256 of every commit's."""
    return {record.commit.manifest.sha256 for record in commits(records)}


def newest_commit(records: Sequence[Record]) -> Record | None:
    return _newest(records, "COMMIT")


def last_attempt(records: Sequence[Record]) -> int:
    """The highest attempt number that a commit tells; 0 before the first."""
    return max((record.commit.attempt for record in commits(records)), default=0)


def regimes(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.kind == "REGIME"]


def notes(records: Sequence[Record], kind: type[AnyNote]) -> list[AnyNote]:
    """What the REGIMEs of one kind say, oldest first."""
    return [kind.from_payload(one.payload) for one in regimes(records) if one.payload.get("what") == kind.WHAT]


def is_done(records: Sequence[Record]) -> bool:
    """Whether the log is closed: a REGIME behind its DONE, which gives the job more steps, opens it again."""
    return records[-1].kind == "DONE"


def ends(records: Sequence[Record]) -> list[Record]:
    """Every end that the job has come to; all but the last were not the last."""
    return [record for record in records if record.kind == "DONE"]


def stored_ids(records: Sequence[Record]) -> set[str]:
    """Ids of every object that some record names; what is in none of them is an orphan."""
    return set(_ids([record.payload for record in records]))


def condense(records: Sequence[Record]) -> list[Record]:
    """What a later reader still needs: everything but leases that are over. A COMMIT may always be the best one."""
    needed = {record.seq for record in records if record.kind not in ("LEASE", "RELEASE")}
    needed |= {record.seq for record in (lease(records), _newest(records, *OF_A_LEASE)) if record is not None}
    return [record for record in records if record.seq in needed]


def _newest(records: Sequence[Record], *kinds: Kind) -> Record | None:
    return next((record for record in reversed(records) if record.kind in kinds), None)


def _ids(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [item for key, item in value.items() if (key == "id" or key.endswith("_id")) and isinstance(item, str)]
        return own + [id for item in value.values() for id in _ids(item)]
    return [id for item in value for id in _ids(item)] if isinstance(value, list) else []
