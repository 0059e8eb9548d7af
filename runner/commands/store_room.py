"""What queued jobs will take of the store, and whether it is there. Asking must neither fail nor hold up anything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from runner.commands.plan import shape_of, words_of
from runner.errors import RunnerError
from runner.forecast import checkpoint_bytes
from runner.retention import KEPT_LAST
from runner.settings import Settings
from runner.store.base import Quota, Store
from runner.store.open import open_store
from runner.store.space import forecast
from wake2vec.contract.budget import trained_by
from wake2vec.contract.errors import Wake2vecError
from wake2vec.contract.spec import CommandSpec, JobSpec

PATIENCE_SECONDS = 8.0
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class StoreNeed:
    """What a job will take: so many checkpoints at a time, each of so many bytes at most."""

    job: str
    checkpoint_bytes: int
    kept: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the store said of its room, or why it said nothing."""

    quota: Quota | None
    problem: str = ""


def need_of(spec: JobSpec, file: Path) -> StoreNeed | None:
    """None where nobody can tell: a program of one's own, a model whose shape is not known here."""
    if isinstance(spec, CommandSpec):
        return None
    try:
        words = words_of(spec, file, 0 if trained_by(spec) == "p2" else None)
        size = checkpoint_bytes(spec, shape_of(spec, file), words.count, words.row_bytes)
    except Wake2vecError:
        return None
    every = spec.checkpoint.every_steps * spec.checkpoint.keep_milestones
    milestones = spec.train.steps // every if every and spec.train.steps else 0
    kept = KEPT_LAST + 1 + milestones  # the best one too
    return None if size is None else StoreNeed(job=spec.name, checkpoint_bytes=size, kept=kept)


def ask(store: Store, patience_seconds: float = PATIENCE_SECONDS) -> Answer:
    quota, problem = asked(store.quota, patience_seconds)
    return Answer(quota=quota, problem=problem)


def asked(question: Callable[[], T], patience_seconds: float = PATIENCE_SECONDS) -> tuple[T | None, str]:
    """The answer, or why there is none; in a thread that nobody waits for when it hangs."""
    answers: list[tuple[T | None, str]] = []

    def run() -> None:
        try:
            answers.append((question(), ""))
        except (RunnerError, OSError) as error:
            answers.append((None, str(error)))

    thread = threading.Thread(target=run, name="question to the store", daemon=True)
    thread.start()
    thread.join(patience_seconds)
    return answers[0] if answers else (None, f"no answer in {patience_seconds:.0f} s")


def lines_of(needs: Sequence[StoreNeed], answer: Answer, place: str) -> list[str]:
    """One line a job, and a warning below where it will not fit."""
    if answer.quota is None:
        return [f"the room in {place} could not be asked for: {answer.problem}"] if needs else []
    lines, promised = [], 0
    for need in needs:
        room = forecast(need.checkpoint_bytes, need.kept, answer.quota, place=place, promised=promised)
        promised += room.needed_bytes
        lines.append(f"{need.job} will take up to {room.text}")
        if not room.is_enough:
            lines.append(
                f"  warning: {need.job} will not fit: its uploads will wait, and what is not uploaded is lost with the "
                "machine; make room there (empty the bin too), keep fewer milestones, or choose another --store"
            )
    return lines


def foretell(settings: Settings, jobs: Sequence[tuple[JobSpec, Path]]) -> list[str]:
    """The lines for jobs that were read from these files."""
    needs = [need for spec, file in jobs if (need := need_of(spec, file)) is not None]
    if not needs:
        return []
    try:
        store = open_store(settings.store_url, settings.home)
    except RunnerError as error:
        return lines_of(needs, Answer(quota=None, problem=str(error)), settings.store_shown)
    return lines_of(needs, ask(store), store.properties.place)
