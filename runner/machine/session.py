"""Which machine this is, when its session ends as far as anyone knows, and how long sessions last here."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.errors import RunnerError
from runner.queue.rows import Session

# Kaggle ends a GPU session after 12 h; half an hour stays for the last upload. Colab promises no time at all.
KAGGLE_SECONDS = 12 * 3600 - 1800
PRIOR_MINUTES = 100.0  # mean session of the runs that the original scripts were made for
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse", "fuseblk", "davfs"}
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """`id` is the same for every process of one boot of one machine; `started_at` is when the session began."""

    id: str
    platform: str
    started_at: float


def this_machine(environment: Mapping[str, str], proc: Path = Path("/proc")) -> Machine:
    kind = "colab" if "COLAB_RELEASE_TAG" in environment else "plain"
    kind = "kaggle" if "KAGGLE_KERNEL_RUN_TYPE" in environment else kind
    boot = _read(proc / "sys/kernel/random/boot_id").strip()
    # A container keeps the boot id of its host, so the start of its first process tells two of them apart.
    first = _read(proc / "1/stat").rsplit(")", 1)[-1].split()
    start_ticks = first[19] if len(first) > 19 else "0"
    booted = re.search(r"^btime (\d+)", _read(proc / "stat"), re.MULTILINE)
    started_at = (float(booted[1]) if booted else 0.0) + int(start_ticks) / os.sysconf("SC_CLK_TCK")
    return Machine(id=f"{platform.node()}:{boot[:13]}:{start_ticks}", platform=kind, started_at=started_at)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def session_end(
    machine: Machine,
    now: float,
    *,
    max_hours: float | None,
    stop_at: str | None,
    today: datetime.datetime | None = None,
) -> float | None:
    """When work must be safe, in seconds since 1970: the earliest of what the platform and the person say."""
    # Of a machine that is older, nobody can tell: it ends any minute, or was not started when its clock says (a
    # snapshot, a pool of waiting ones). Then nothing is lost by working on, and hours by waiting.
    known = machine.platform == "kaggle" and now < machine.started_at + KAGGLE_SECONDS
    ends = [machine.started_at + KAGGLE_SECONDS] if known else []
    if max_hours is not None:
        ends.append(now + max_hours * 3600)
    if stop_at is not None:
        ends.append(_next_time_of_day(stop_at, today or datetime.datetime.fromtimestamp(now)))
    return min(ends, default=None)


def _next_time_of_day(text: str, now: datetime.datetime) -> float:
    found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text)
    if not found:
        raise RunnerError(f"--stop-at {text!r}: expected a time of day such as 23:30")
    end = now.replace(hour=int(found[1]), minute=int(found[2]), second=0, microsecond=0)
    return (end if end > now else end + datetime.timedelta(days=1)).timestamp()


def mean_session_minutes(sessions: Sequence[Session]) -> float:
    """How long sessions last as far as the cadence must guess, with the prior as one: a single short one must not
    decide."""
    lives = _lives(sessions)
    return max(1.0, (PRIOR_MINUTES + sum(lives)) / (1 + len(lives)))


def mounted_drive(store_url: str) -> str:
    """Why a folder of Colab's mounted Drive is no safe store; empty for any other."""
    scheme, _, rest = store_url.partition(":")
    if scheme != "dir" or not str(Path(rest).expanduser().absolute()).startswith("/content/drive/"):
        return ""
    return (
        f"{rest} lies on the mounted Drive, which takes files long before they are in Drive: what is called durable "
        "can be lost with this runtime; use --store drive:FOLDER"
    )


def past_session_minutes(sessions: Sequence[Session]) -> float | None:
    """How long sessions that are over lasted, for people; None where there is none."""
    lives = _lives(sessions)
    return sum(lives) / len(lives) if lives else None


def _lives(sessions: Sequence[Session]) -> list[float]:
    return [max(0.0, one.ended_at - one.started_at) / 60 for one in sessions if one.ended_at is not None]


def network_file_system(path: Path, mounts: str | None = None) -> str | None:
    """The kind of network or user-space file system that `path` lies on, or None on a local disk."""
    target = path.absolute()
    best, kind = Path("/"), ""
    for line in (_read(Path("/proc/self/mounts")) if mounts is None else mounts).splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields[1]))
        if target.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, fields[2]
    return kind if kind.split(".")[0] in NETWORK_FILE_SYSTEMS else None
