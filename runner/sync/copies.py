"""Bring copies of the queue's database to the store now and then, and their history back to a home that has none."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.context import Now
from runner.errors import Damaged, DatabaseCorrupt, NotStored, RunnerError
from runner.queue.changing import apply_regime
from runner.queue.history import LogSays, check_copy, take_history
from runner.queue.ledger import add_event
from runner.queue.sqlite import check_integrity, copy_database
from runner.store.copies import (
    Generation,
    fetch_generation,
    list_generations,
    publish_generation,
    sweep_generations,
)
from runner.store.log import Log
from runner.store.records import StateNote, commits, is_done, regimes
from runner.sync.job_in_store import SyncContext
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.files import counted

Say = Callable[[str], None]

AFTER_AN_EVENT_SECONDS = 60.0
AFTER_A_COMMIT_SECONDS = 600.0
AFTER_TROUBLE_SECONDS = 120.0  # the jobs find out when the store is there again


def mirror(context: SyncContext, now: Now, *, leaving: bool = False) -> None:
    """Publish a copy when the queue has changed in what no log carries, and the last one is old enough.

    `leaving`: whatever the age of the last one. SQLite's own backup reads beside the writer. What keeps the copy from
    the store is told by the jobs, which it keeps from there too. Raises DatabaseCorrupt when the queue is not sound.
    """
    place = context.queue.place
    if not isinstance(place, Path):  # a server's own back-ups are better, and the logs are in the store in any case
        return
    age = (now.monotonic - context.mirrored_at) / context.store.properties.pace
    if not leaving and age < AFTER_AN_EVENT_SECONDS:
        return
    view = context.sight.look() if leaving else context.sight.view
    daemon, mark = context.daemon, view.mark
    is_first, happened = context.mirrored is None, context.mirrored is None or context.mirrored.event != mark.event
    patience = AFTER_AN_EVENT_SECONDS if happened else AFTER_A_COMMIT_SECONDS
    if mark == context.mirrored or (not leaving and age < patience):
        return
    if now.monotonic - context.trouble_at < AFTER_TROUBLE_SECONDS or not view.jobs:
        return
    if any(
        name not in context.retry_at for name in daemon.handover.asked()
    ):  # a job is about to start, and comes first
        return
    context.mirrored_at = now.monotonic  # a copy that fails is in no hurry
    try:
        root = context.root_log()
        if is_first:
            sweep_generations(root, journal=context.journal, now=now.wall)
        with scratch(context) as folder:
            copy = folder / "runner.db"
            copy_database(place, copy)
            check_integrity(copy)
            publish_generation(root, copy, journal=context.journal, now=now.wall)
    except DatabaseCorrupt:
        raise
    except (RunnerError, OSError):
        return
    failpoint("mirror.published")
    context.mirrored = mark


def sound_copies(context: SyncContext, folder: Path, now: Now, say: Say) -> Iterator[tuple[Generation, Path]]:
    """The copies in the store that verify, newest first, each fetched when it is asked for. Raises StoreUnavailable."""
    root = context.root_log()
    for generation in reversed(list_generations(root)):
        try:
            copy = fetch_generation(root, generation, folder)
            check_copy(copy)
        except (NotStored, Damaged, DatabaseCorrupt) as error:
            _pass_over(context, generation, error, now, say)
        else:
            yield generation, copy


def bring_history(
    context: SyncContext,
    copies: Iterable[tuple[Generation, Path]],
    logs: Mapping[str, Log],
    lives: Mapping[str, tuple[float, float]],
    now: Now,
    say: Say,
) -> None:
    """Take over what the first usable copy tells of the jobs with these logs; without one, nothing.

    `lives` says when each home was first and last seen.
    """
    told = {name: _log_says(log) for name, log in logs.items()}
    for generation, copy in copies:
        seen_at = lives.get(generation.holder, (0.0, 0.0))[1]
        try:
            context.daemon.session, changes = take_history(context.queue, copy, told, context.daemon.session, seen_at)
        except DatabaseCorrupt as error:
            _pass_over(context, generation, error, now, say)
            continue
        for name, change in changes:
            _make_anew(context, name, change, now)
        said = f"the history of {counted(len(logs), 'job')} came from {_name(generation)}"
        say(said)
        add_event(context.queue, now.wall, "restored", said)
        return


def _pass_over(context: SyncContext, generation: Generation, error: RunnerError, now: Now, say: Say) -> None:
    problem = error.problem if isinstance(error, DatabaseCorrupt) else str(error)
    said = f"{_name(generation)} is of no use, going back one: {problem}"
    say(said)
    add_event(context.queue, now.wall, "corrupt", said)


def _log_says(log: Log) -> LogSays:
    said = regimes(log.records)
    states = [record.written_at for record in said if record.payload.get("what") == StateNote.WHAT]
    return LogSays(
        fingerprint=log.records[0].genesis.fingerprint,
        is_done=is_done(log.records),
        manifests=frozenset(one.commit.manifest.sha256 for one in commits(log.records)),
        changes=tuple(record.payload for record in said),
        state_told_at=max(states, default=0.0),
    )


def _make_anew(context: SyncContext, job: str, change: dict[str, Any], now: Now) -> None:
    try:
        apply_regime(context.queue, job, change)
    except (RunnerError, ValueError, KeyError, TypeError) as error:
        add_event(
            context.queue, now.wall, "corrupt", f"{job}: a change of its settings cannot be made: {error}", job=job
        )


def _name(generation: Generation) -> str:
    return f"database copy {generation.number} of {generation.holder}"


@contextmanager
def scratch(context: SyncContext) -> Iterator[Path]:
    """A folder of the home for copies on their way; a killed daemon's is removed by the next."""
    folder = context.home / "generation"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
