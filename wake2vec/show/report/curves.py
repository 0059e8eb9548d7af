"""The charts of a report: which lines of a ledger go into which picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from wake2vec.contract.ledger import EvaluationRow, StepRow
from wake2vec.show.facts import ln_v
from wake2vec.show.report.chart import Chart, ChartMark, Point, Series, draw
from wake2vec.show.report.html import Html
from wake2vec.show.report.reading import RunView
from wake2vec.show.series import running_mean


def charts(view: RunView) -> list[Html]:
    every = (losses, bits_per_byte, new_and_base, english, learning_rate, gradient_norm, seconds_per_step, memory)
    return [picture for make in every if (picture := draw(make(view))) is not None]


def losses(view: RunView) -> Chart:
    ledger, floor = view.ledger, ln_v(view.facts, view.ledger)
    levels = [(floor, f"ln V = {floor:.2f} (guessing)", "floor")] if floor is not None else []
    if ledger.best is not None:
        levels.append((ledger.best.loss, f"best {ledger.best.loss:.4f} at step {ledger.best.step}", "best"))
    train = _steps(view, lambda row: row.loss)
    return Chart(
        title="Loss",
        y_label="nats per token",
        series=(
            Series(name="train, each step", points=train, look="train", faint=True),
            Series(name="train, running mean", points=running_mean(train), look="train"),
            Series(name="held out", points=_evaluations(view, lambda row: row.loss), look="val", dots=True),
        ),
        levels=levels,
        borders=_borders(view),
        marks=_marks(view),
    )


def bits_per_byte(view: RunView) -> Chart:
    points = _evaluations(view, lambda row: row.bits_per_byte)
    return Chart(
        title="Bits per byte",
        y_label="held-out text",
        series=(Series(name="held out", points=points, look="val", dots=True),),
        borders=_borders(view),
        small=True,
        note="Compares across models, tokenizers and phases, which the loss per token does not.",
    )


def new_and_base(view: RunView) -> Chart:
    floor = ln_v(view.facts, view.ledger)
    return Chart(
        title="Held-out loss by kind of target",
        y_label="nats per token",
        series=(
            Series(name="new words", points=_evaluations(view, lambda row: row.new_loss), look="new", dots=True),
            Series(name="base tokens", points=_evaluations(view, lambda row: row.base_loss), look="base", dots=True),
        ),
        levels=[(floor, f"ln V = {floor:.2f}", "floor")] if floor is not None else [],
        borders=_borders(view),
        small=True,
    )


def english(view: RunView) -> Chart:
    every = _evaluations(view, lambda row: row.english_bits_per_byte)
    base = _evaluations(view, lambda row: row.english_base_bits_per_byte)
    return Chart(
        title="English that nobody trains on",
        y_label="bits per byte",
        series=(
            Series(name="all tokens", points=every, look="val", dots=True),
            Series(name="published tokens alone", points=base, look="base", dots=True),
        ),
        borders=_borders(view),
        small=True,
        note="Published tokens alone start at the published model's figure: what the line rises by is forgotten.",
    )


def learning_rate(view: RunView) -> Chart:
    return _by_step(view, "Learning rate", "per step", lambda row: row.lr)


def gradient_norm(view: RunView) -> Chart:
    return _by_step(view, "Gradient norm", "L2, before clipping", lambda row: row.grad_norm, noisy=True)


def seconds_per_step(view: RunView) -> Chart:
    return _by_step(view, "Time per step", "seconds", lambda row: row.seconds, noisy=True)


def memory(view: RunView) -> Chart:
    return _by_step(view, "GPU memory, peak", "MiB", lambda row: row.vram_peak_mib)


def _by_step(
    view: RunView, title: str, y_label: str, pick: Callable[[StepRow], float | None], *, noisy: bool = False
) -> Chart:
    points = _steps(view, pick)
    series = [Series(name="each step", points=points, look="ink", faint=noisy)]
    if noisy:
        series.append(Series(name="running mean", points=running_mean(points), look="ink"))
    return Chart(title=title, y_label=y_label, series=series, borders=_borders(view), from_zero=True, small=True)


def overlay(views: Sequence[RunView]) -> Html | None:
    """All jobs in one picture, by the one figure that compares across them."""
    series = [
        Series(name=view.name, points=_evaluations(view, lambda row: row.bits_per_byte), look=f"job-{n % 8}", dots=True)
        for n, view in enumerate(views)
    ]
    note = "Lower is better. The held-out text must be the same for all: same corpus, share and seed."
    return draw(Chart(title="Bits per byte, all jobs", y_label="bits per byte", series=series, note=note))


def _steps(view: RunView, pick: Callable[[StepRow], float | None]) -> list[Point]:
    return [(row.step, value) for row in view.ledger.steps if (value := pick(row)) is not None]


def _evaluations(view: RunView, pick: Callable[[EvaluationRow], float | None]) -> list[Point]:
    return [(row.step, value) for row in view.ledger.evaluations if (value := pick(row)) is not None]


def _borders(view: RunView) -> list[float]:
    return sorted({float(session.first_step) for session in view.facts.sessions if session.first_step > 0})


def _marks(view: RunView) -> list[ChartMark]:
    names = {"oom": "out of memory", "regime": "recorded change (REGIME)"}
    events = sorted((row for row in view.ledger.events if row.event in names), key=lambda row: (row.step, row.event))
    marks = []
    for (step, event), rows in groupby(events, key=lambda row: (row.step, row.event)):
        told = "; ".join(row.text for row in rows if row.text)
        marks.append(ChartMark(x=step, look=event, text=f"{names[event]}: {told}" if told else names[event]))
    return marks
