"""Gather what lies in the home beside the database: locks, heartbeats, orders, the daemon's note."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runner.machine.launcher import holders
from runner.queue.rows import Job
from runner.screen.daemon_note import DaemonNote, LostNote, read_lost, read_note, read_upload
from runner.settings import Settings
from runner.states import State
from wake2vec.contract.files import read_json
from wake2vec.contract.lock import read_lock
from wake2vec.contract.rundir import Heartbeat, RunDir, read_heartbeat


@dataclass(frozen=True, kw_only=True)
class Process:
    """One that lives: it holds its lock."""

    pid: int
    started_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class HomeView:
    """The home beside its database."""

    home: Path
    store_url: str
    daemon: Process | None = None
    trainers: dict[str, Process] = field(default_factory=dict)  # by job
    heartbeats: dict[str, Heartbeat] = field(default_factory=dict)
    stop_by: dict[str, float] = field(default_factory=dict)  # known end of the session, by job
    cards: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of jobs on several, by job
    note: DaemonNote | None = None
    newest_event: int = 0  # that was seen in the database, where nobody writes to it now
    lost: tuple[LostNote, ...] = ()  # what the store was seen to have lost

    def has_lost(self, job: str) -> bool:
        return any(note.job in ("", job) for note in self.lost)


def read_home(settings: Settings, jobs: Sequence[Job]) -> HomeView:
    """What surrounds these jobs now."""
    lock, note = read_lock(settings.daemon_lock), read_note(settings.home)
    daemon = None if lock is None else Process(pid=int(lock.get("pid") or 0), started_at=lock.get("started_at"))
    away = note.away if note is not None and daemon is not None else ()
    running = [job.name for job in jobs if job.state is State.RUNNING]
    runs = {name: RunDir(root=settings.runs / name) for name in running}
    orders = {name: read_json(run.order) for name, run in runs.items()}
    return HomeView(
        home=settings.home,
        store_url=settings.store_shown,
        daemon=daemon,
        trainers=dict.fromkeys(away, Process(pid=0)) | _trainers(settings.locks),
        heartbeats={name: beat for name, run in runs.items() if (beat := read_heartbeat(run)) is not None},
        stop_by={name: float(end) for name, order in orders.items() if (end := (order or {}).get("stop_by"))},
        cards={name: found for name, order in orders.items() if len(found := _cards(order or {})) > 1},
        note=_note(settings.home) if daemon is not None else None,
        newest_event=note.newest_event if note is not None and daemon is None else 0,
        lost=tuple(read_lost(settings.home)),
    )


def _note(home: Path) -> DaemonNote | None:
    note, upload = read_note(home), read_upload(home)
    return note if note is None or upload is None else replace(note, uploads=(upload,))


def _cards(order: dict[str, Any]) -> tuple[int, ...]:
    locks = [order.get("gpu_lock", ""), *order.get("more_locks", ())]
    return tuple(int(number) for lock in locks if (number := Path(lock).stem.removeprefix("gpu")).isdigit())


def _trainers(locks: Path) -> dict[str, Process]:
    return {str(holder["job"]): Process(pid=int(holder.get("pid") or 0)) for holder in holders(locks)}
