"""What a run's file of W&B's holds: records in LevelDB's log format, behind a header of seven bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

HEADER = struct.Struct("<4sHB")
BLOCK_BYTES = 32 << 10
PART = struct.Struct("<IHB")  # checksum, length, kind
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def kept_rows(path: Path) -> int:
    """One more than the last row of its history, by W&B's own count; 0 where it holds none."""
    from wandb.proto.wandb_internal_pb2 import Record

    last = -1
    for body in records(path.read_bytes()):
        record = Record.FromString(body)
        if record.WhichOneof("record_type") == "history":
            last = max(last, record.history.step.num)
    return last + 1


def records(log: bytes) -> Iterator[bytes]:
    """Up to the first that a killed writer left torn."""
    at, begun = HEADER.size, b""
    while at + PART.size <= len(log):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < PART.size:  # the end of a block, too small for a part
            at += left
            continue
        _, length, kind = PART.unpack_from(log, at)
        body = log[at + PART.size : at + PART.size + length]
        if len(body) < length or not WHOLE <= kind <= LAST:
            return
        at += PART.size + length
        begun = body if kind in (WHOLE, FIRST) else begun + body
        if kind in (WHOLE, LAST):
            yield begun
