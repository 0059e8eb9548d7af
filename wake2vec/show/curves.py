"""The charts of a run: which lines of its ledger go into which picture. Pure."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

from wake2vec.contract.ledger import EvaluationRow, Ledger, StepRow
from wake2vec.show.chart import Chart, ChartMark, Level, Point, Series
from wake2vec.show.facts import RunFacts, ln_v
from wake2vec.show.series import running_mean

EVENTS = {"oom": "out of memory", "regime": "recorded change (REGIME)"}


def charts(facts: RunFacts, ledger: Ledger) -> list[Chart]:
    every = (losses, bits_per_byte, new_and_base, english, learning_rate, gradient_norm, seconds_per_step, memory)
    return [make(facts, ledger) for make in every]


def losses(facts: RunFacts, ledger: Ledger) -> Chart:
    levels = floor_of(facts, ledger, "guessing")
    if (best := ledger.best) is not None:
        levels.append((best.loss, f"best {best.loss:.4f} at step {best.step}", "best"))
    train = _steps(ledger, lambda row: row.loss)
    return Chart(
        title="Loss",
        y_label="nats per token",
        series=(
            Series(name="train, each step", points=train, look="train", faint=True),
            Series(name="train, running mean", points=running_mean(train), look="train"),
            measured("held out", ledger, lambda row: row.loss),
        ),
        levels=levels,
        borders=_borders(facts),
        marks=_marks(ledger),
    )


def bits_per_byte(facts: RunFacts, ledger: Ledger) -> Chart:
    line = measured("held out", ledger, lambda row: row.bits_per_byte)
    note = "Compares across models, tokenizers and phases, which the loss per token does not."
    return _small(facts, "Bits per byte", "held-out text", line, note=note)


def new_and_base(facts: RunFacts, ledger: Ledger) -> Chart:
    new = measured("new words", ledger, lambda row: row.new_loss, look="new")
    base = measured("base tokens", ledger, lambda row: row.base_loss, look="base")
    levels = floor_of(facts, ledger)
    return _small(facts, "Held-out loss by kind of target", "nats per token", new, base, levels=levels)


def english(facts: RunFacts, ledger: Ledger) -> Chart:
    every = measured("all tokens", ledger, lambda row: row.english_bits_per_byte)
    base = measured("published tokens alone", ledger, lambda row: row.english_base_bits_per_byte, look="base")
    note = "Published tokens alone start at the published model's figure: what the line rises by is forgotten."
    return _small(facts, "English that nobody trains on", "bits per byte", every, base, note=note)


def learning_rate(facts: RunFacts, ledger: Ledger) -> Chart:
    return _by_step(facts, ledger, "Learning rate", "per step", lambda row: row.lr)


def gradient_norm(facts: RunFacts, ledger: Ledger) -> Chart:
    return _by_step(facts, ledger, "Gradient norm", "L2, before clipping", lambda row: row.grad_norm, noisy=True)


def seconds_per_step(facts: RunFacts, ledger: Ledger) -> Chart:
    return _by_step(facts, ledger, "Time per step", "seconds", lambda row: row.seconds, noisy=True)


def memory(facts: RunFacts, ledger: Ledger) -> Chart:
    return _by_step(facts, ledger, "GPU memory, peak", "MiB", lambda row: row.vram_peak_mib)


def measured(name: str, ledger: Ledger, pick: Callable[[EvaluationRow], float | None], *, look: str = "val") -> Series:
    """A line of evaluations."""
    points = [(row.step, value) for row in ledger.evaluations if (value := pick(row)) is not None]
    return Series(name=name, points=points, look=look, dots=True)


def floor_of(facts: RunFacts, ledger: Ledger, said: str = "") -> list[Level]:
    floor = ln_v(facts, ledger)
    return [] if floor is None else [(floor, f"ln V = {floor:.2f}" + (f" ({said})" if said else ""), "floor")]


def _small(facts: RunFacts, title: str, y_label: str, *series: Series, **more: Any) -> Chart:
    return Chart(title=title, y_label=y_label, series=series, borders=_borders(facts), small=True, **more)


def _by_step(
    facts: RunFacts,
    ledger: Ledger,
    title: str,
    y_label: str,
    pick: Callable[[StepRow], float | None],
    *,
    noisy: bool = False,
) -> Chart:
    points = _steps(ledger, pick)
    lines = [Series(name="each step", points=points, look="ink", faint=noisy)]
    lines += [Series(name="running mean", points=running_mean(points), look="ink")] if noisy else []
    return _small(facts, title, y_label, *lines, from_zero=True)


def _steps(ledger: Ledger, pick: Callable[[StepRow], float | None]) -> list[Point]:
    return [(row.step, value) for row in ledger.steps if (value := pick(row)) is not None]


def _borders(facts: RunFacts) -> list[float]:
    return sorted({float(session.first_step) for session in facts.sessions if session.first_step > 0})


def _marks(ledger: Ledger) -> list[ChartMark]:
    events = sorted((row for row in ledger.events if row.event in EVENTS), key=lambda row: (row.step, row.event))
    return [
        ChartMark(x=step, look=event, name=EVENTS[event], text="; ".join(row.text for row in rows if row.text))
        for (step, event), rows in groupby(events, key=lambda row: (row.step, row.event))
    ]
