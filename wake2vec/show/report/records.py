"""What was recorded along the way: sessions, attempts, environment, events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

from wake2vec.contract.files import counted
from wake2vec.contract.ledger import StepRow
from wake2vec.show.facts import session_of
from wake2vec.show.report.html import Child, Html, el, table
from wake2vec.show.report.reading import Row, RunView
from wake2vec.show.series import mean_seconds
from wake2vec.show.text import figure


def sessions(view: RunView) -> Html | None:
    """Per session: steps, time and memory, from the ledger; beside it the attempts as the runner saw them."""
    parts: list[Child] = []
    if view.facts.sessions:
        head = ("session", "began", "GPU", "first step", "last step", "steps", "s/step", "time", "peak MiB")
        parts.append(table(head, _session_rows(view)))
    if view.runner.attempts:
        parts += [el("h4", "Attempts"), rows_table(_attempt_rows(view), _ATTEMPT)]
    return el("section", el("h3", "Sessions: memory and time"), parts) if parts else None


def _session_rows(view: RunView) -> list[Sequence[Child]]:
    every = view.facts.sessions
    rows: list[Sequence[Child]] = []
    by_session: dict[int, list[StepRow]] = {}
    for row in view.ledger.steps:
        by_session.setdefault(session_of(row.step, every), []).append(row)
    for number, session in enumerate(every, start=1):
        steps = by_session.get(number, [])
        seconds = [row.seconds for row in steps if row.seconds is not None and math.isfinite(row.seconds)]
        peak = max((row.vram_peak_mib for row in steps if row.vram_peak_mib is not None), default=None)
        last = f"{steps[-1].step:,}" if steps else "–"
        cells = (
            str(number),
            when(session.started_at),
            session.gpu or ("CPU" if view.runner.sessions else "–"),
            f"{session.first_step:,}",
            last,
            f"{len(steps):,}",
        )
        rows.append((*cells, figure(mean_seconds(steps), 2), hours(sum(seconds)), figure(peak, 0)))
    return rows


def _attempt_rows(view: RunView) -> list[Row]:
    """As the runner has them, with the card by its name, and the steps that a later attempt had to train again."""
    cards = {
        row.get("id"): [name for name in str(row.get("gpu") or "").split(", ") if name] for row in view.runner.sessions
    }
    rows: list[Row] = []
    for attempt, later in zip_longest(view.runner.attempts, view.runner.attempts[1:]):
        names, gpu, last = cards.get(attempt.get("session")), attempt.get("gpu"), attempt.get("last_step")
        shown = {**attempt, "gpu": gpu}
        if names is not None and isinstance(gpu, int):
            shown["gpu"] = "CPU" if not names else f"{gpu}: {names[gpu]}" if gpu < len(names) else gpu
        first = later.get("first_step") if later is not None else None
        if isinstance(last, int) and isinstance(first, int):
            shown["trained_again"] = max(0, last - first) or None
        rows.append(shown)
    return rows


_STEPS = ("first_step", "last_step", "trained_again")
_ATTEMPT = ("id", "outcome", *_STEPS, "gpu", "started_at", "ended_at", "place", "cause", "remedy", "session")


def environment(view: RunView) -> Html | None:
    parts: list[Child] = []
    facts = view.facts
    places = facts.places or {}
    known = {
        "ids of the published tokenizer": facts.base_tokens,
        "new tokens": facts.n_new or None,
        "new words in the training text": facts.words_present,
        "new words met in training": facts.words_met,
        "places of new words in the text": places.get("occurrences"),
        "places that are their token": places.get("occurrences_met"),
        "training blocks": facts.train_blocks,
        "held-out windows": facts.held_out_windows,
        "held-out bytes": facts.held_out_bytes,
    }
    rows: list[Sequence[Child]] = [(name, f"{value:,}") for name, value in known.items() if value is not None]
    rows += sorted(facts.versions.items())
    if rows:
        parts.append(table(("", ""), rows))
    if view.runner.sessions:
        parts += [
            el("h4", "Machines"),
            rows_table(view.runner.sessions, ("id", "machine", "platform", "gpu", "started_at", "ended_at", "cause")),
        ]
    if view.job is not None:
        settings = view.job.model_dump_json(indent=1, exclude_none=True)
        parts.append(el("details", el("summary", "The job as it was frozen"), el("pre", settings)))
    return el("section", el("h3", "Environment"), parts) if parts else None


def events(view: RunView) -> Html | None:
    rows: list[Sequence[Child]] = [(f"{row.step:,}", row.event, row.text) for row in view.ledger.events]
    parts: list[Child] = [table(("step", "event", ""), rows)] if rows else []
    if view.ledger.unreadable_lines:
        torn = counted(view.ledger.unreadable_lines, "torn line")
        parts.append(el("p", f"{torn} of the ledger left out.", class_="note"))
    if view.runner.events:
        parts += [el("h4", "The runner's"), rows_table(view.runner.events, ("at", "kind", "text"))]
    if not parts:
        return None
    count = len(rows) + len(view.runner.events)
    fold = el("details", el("summary", counted(count, "event")), parts, open="" if count <= 20 else None)
    return el("section", el("h3", "Events"), fold)


def rows_table(rows: Sequence[Row], first: Sequence[str]) -> Html:
    """Rows of the runner's tables: these columns first, then others it may have grown; empty ones are left out."""
    names = [*first, *sorted({name for row in rows for name in row} - {*first, "job", "origin"})]
    shown = [name for name in names if any(row.get(name) not in (None, "") for row in rows)]
    cells = [[when(row.get(name)) if _is_time(name) else value_text(row.get(name)) for name in shown] for row in rows]
    return table([name.removesuffix("_at").replace("_", " ") for name in shown], cells)


def _is_time(name: str) -> bool:
    return name == "at" or name.endswith("_at")


def value_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "NaN"
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def when(seconds: Any) -> str:
    """Seconds since 1970 as UTC; an en dash for none."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < 1e11:
        return "–"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def hours(seconds: float) -> str:
    if seconds <= 0:
        return "–"
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 3600
        else f"{seconds / 60:.1f} min"
        if seconds >= 60
        else f"{seconds:.1f} s"
    )
