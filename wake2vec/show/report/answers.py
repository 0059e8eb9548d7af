"""The section of a report that tells what a job came to, hope by hope."""

from __future__ import annotations

from wake2vec.show.hopes import HEAD, MEANING
from wake2vec.show.report.html import Child, Html, el, table
from wake2vec.show.report.reading import RunView


def hopes(view: RunView) -> Html | None:
    if view.hopes is None:
        return None
    parts: list[Child] = []
    for hope, found in view.hopes.by_hope():
        said = [el("p", f"{one.name}: {one.text}", class_="note") for one in found if one.text]
        fold = el("details", el("summary", "what these are"), said) if said else None
        parts += [el("h4", str(hope)), table(HEAD, [one.cells() for one in found]), fold]
    notes = [el("p", note, class_="note") for note in (*view.hopes.notes, MEANING)]
    return el("section", el("h3", f"What step {view.hopes.step:,} came to"), parts, notes)
