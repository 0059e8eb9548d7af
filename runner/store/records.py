"""Records of a log, and what a list of them says: pure, and the only reading of the truth about a job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from runner.errors import Damaged

Kind = Literal["ROOT", "JOB", "GENESIS", "LEASE", "COMMIT", "REGIME", "RELEASE", "DONE"]
FORMAT = 1
CARRY_EVERY = 32  # a record with this many before it carries what still matters, so that a reader may start there


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

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, body: bytes, place: str) -> Record:
        """Raises Damaged when the body is not a record this version understands."""
        try:
            return cls._from_table(json.loads(body))
        except (ValueError, TypeError, AttributeError) as error:
            raise Damaged(
                f"{place}: is not a record of a log ({error}); was it changed by hand, or by a newer version?"
            ) from error

    @classmethod
    def _from_table(cls, table: dict[str, Any]) -> Record:
        carried = table.pop("carried", None)
        record = cls(**table, carried=None if carried is None else tuple(cls._from_table(dict(old)) for old in carried))
        if record.format != FORMAT:
            raise ValueError(f"format {record.format}")
        return record


def genesis(records: Sequence[Record]) -> dict[str, Any]:
    """What the job is: the payload of the log's first record."""
    return records[0].payload


def lease(records: Sequence[Record]) -> Record | None:
    """The newest LEASE, released or not."""
    return next((record for record in reversed(records) if record.kind == "LEASE"), None)


def lease_epoch(records: Sequence[Record]) -> int:
    """The fencing number in force; 0 before the first lease."""
    newest = lease(records)
    return newest.epoch if newest else 0


def is_released(records: Sequence[Record]) -> bool:
    """Whether nobody holds the job: never leased, or the newest lease was given back, by a RELEASE or by the end."""
    last = _last_of_lease(records)
    return last is None or last.kind != "LEASE"


def commits(records: Sequence[Record]) -> list[Record]:
    """Durable checkpoints in the order of the log: a step may repeat when a later checkpoint could not be read."""
    return [record for record in records if record.kind == "COMMIT"]


def newest_commit(records: Sequence[Record]) -> Record | None:
    found = commits(records)
    return found[-1] if found else None


def last_attempt(records: Sequence[Record]) -> int:
    """The highest attempt number that a commit tells; 0 before the first."""
    return max((int(record.payload.get("attempt", 0)) for record in commits(records)), default=0)


def regimes(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.kind == "REGIME"]


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
    needed |= {record.seq for record in (lease(records), _last_of_lease(records)) if record is not None}
    return [record for record in records if record.seq in needed]


def _last_of_lease(records: Sequence[Record]) -> Record | None:
    return next((record for record in reversed(records) if record.kind in ("LEASE", "RELEASE", "DONE")), None)


def _ids(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [item for key, item in value.items() if (key == "id" or key.endswith("_id")) and isinstance(item, str)]
        return own + [id for item in value.values() for id in _ids(item)]
    if isinstance(value, list):
        return [id for item in value for id in _ids(item)]
    return []
