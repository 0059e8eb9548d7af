"""Put a report together: one file that needs no network and runs no script."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from wake2vec.show.chart import Chart
from wake2vec.show.curves import measured
from wake2vec.show.report import records, sections
from wake2vec.show.report.html import Child, Html, el, table
from wake2vec.show.report.reading import RunView
from wake2vec.show.report.style import STYLE
from wake2vec.show.report.svg import draw
from wake2vec.show.text import figure

# the browser itself refuses whatever is not in this file, should a name ever slip through the escaping
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_PARTS = (
    sections.summary,
    sections.curves,
    sections.evaluations,
    sections.structure,
    sections.hopes,
    sections.samples,
    sections.geometry,
    records.sessions,
    records.environment,
    records.events,
)


def page(views: Sequence[RunView], *, now: datetime) -> str:
    title = ", ".join(view.name for view in views)
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="Content-Security-Policy", content=POLICY),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{title} – wake2vec"),
        el("style", Html(STYLE)),
    )
    written = f"Written {now:%Y-%m-%d %H:%M} UTC from the ledger of {'this run' if len(views) == 1 else 'these runs'}."
    body: list[Child] = [el("header", el("h1", title), el("p", written, class_="note"))]
    if len(views) > 1:
        body += [_contents(views), compare(views)]
    body += [_job(number, view, alone=len(views) == 1) for number, view in enumerate(views)]
    return "<!DOCTYPE html>\n" + el("html", head, el("body", el("main", body)), lang="en") + "\n"


def _contents(views: Sequence[RunView]) -> Html:
    return el("nav", [el("a", view.name, href=f"#job-{number}") for number, view in enumerate(views)])


def _job(number: int, view: RunView, *, alone: bool) -> Html:
    parts = [made for part in _PARTS if (made := part(view)) is not None]
    return el("article", None if alone else el("h2", view.name), parts, id=f"job-{number}", class_="job")


def compare(views: Sequence[RunView]) -> Html:
    head = ("job", "model", "steps", "best bits/byte", "best nats", "at step", "last nats", "sessions")
    rows: list[Sequence[Child]] = []
    for view in views:
        best, last = view.ledger.best, view.ledger.evaluations[-1:]
        lowest = min(
            (row.bits_per_byte for row in view.ledger.evaluations if row.bits_per_byte is not None), default=None
        )
        at_best = (figure(best.loss), f"{best.step:,}") if best else ("–", "–")
        at_last = figure(last[0].loss) if last else "–"
        steps = f"{view.ledger.last_step:,}"
        rows.append(
            (view.name, view.facts.model_name, steps, figure(lowest), *at_best, at_last, str(len(view.facts.sessions)))
        )
    texts = {view.measured_on for view in views if view.measured_on is not None}
    warning = el("p", _OTHER_TEXT, class_="verdict") if len(texts) > 1 else None
    return el("section", el("h2", "Compared"), warning, overlay(views), table(head, rows), _structures(views))


def overlay(views: Sequence[RunView]) -> Html | None:
    """All jobs in one picture, by the one figure that compares across them."""
    lines = [
        measured(view.name, view.ledger, lambda row: row.bits_per_byte, look=f"job-{number % 8}")
        for number, view in enumerate(views)
    ]
    note = "Lower is better. The held-out text must be the same for all: same corpus, share and seed."
    return draw(Chart(title="Bits per byte, all jobs", y_label="bits per byte", series=lines, note=note))


def _structures(views: Sequence[RunView]) -> Html | None:
    """Of the last evaluations, where any run has them: treatment, control and shuffled runs side by side."""
    rows = [
        (view.name, *(sections.structure_cell(view.ledger.evaluations[-1].structure, *places) for _, *places in part))
        for view in views
        if (part := sections.STRUCTURE) and view.ledger.evaluations and view.ledger.evaluations[-1].structure
    ]
    return table(("job", *(head for head, *_ in sections.STRUCTURE)), rows) if rows else None


_OTHER_TEXT = (
    "These jobs were not measured on the same text: held_out, seed, split or max_windows differ. "
    "Do not compare their figures with each other."
)
