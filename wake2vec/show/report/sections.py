"""The sections of a report, one function each; a section with nothing to show is None."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from wake2vec.contract.expectation import value_at
from wake2vec.contract.files import counted
from wake2vec.contract.ledger import EvaluationRow
from wake2vec.contract.plan import LAYERS
from wake2vec.show.curves import charts
from wake2vec.show.facts import ln_v
from wake2vec.show.hopes import HEAD, MEANING
from wake2vec.show.report.html import Child, Html, el, table
from wake2vec.show.report.reading import RunView
from wake2vec.show.report.records import hours, value_text
from wake2vec.show.report.svg import draw
from wake2vec.show.series import mean_seconds, perplexity
from wake2vec.show.text import DEVLOG_HEAD, devlog_cells, figure
from wake2vec.show.worries import worries


def summary(view: RunView) -> Html:
    ledger, best, last = view.ledger, view.ledger.best, view.ledger.evaluations[-1:]
    of = f" of {view.steps:,}" if view.steps else ""
    seconds = [row.seconds for row in ledger.steps if row.seconds is not None and math.isfinite(row.seconds)]
    cards: list[tuple[str, Child, Child]] = [
        ("state", view.runner.state or "–", view.runner.reason),
        ("steps", f"{ledger.last_step:,}{of}", f"{sum(row.tokens for row in ledger.steps):,} tokens"),
        (
            "best held-out loss",
            figure(best.loss if best else None),
            f"nats per token, step {best.step}" if best else "",
        ),
        ("bits per byte", figure(best.bits_per_byte if best else None), "at the best step"),
        ("last held-out loss", figure(last[0].loss if last else None), f"step {last[0].step}" if last else ""),
        ("time in steps", hours(sum(seconds)), f"{figure(mean_seconds(ledger.steps), 2)} s per step"),
        (
            "sessions",
            len(view.facts.sessions) or "–",
            counted(len(view.runner.attempts), "attempt") if view.runner.attempts else "",
        ),
    ]
    if view.facts.coverage is not None:
        cards.append(("text seen", f"{100 * view.facts.coverage:.0f} %", "of the training blocks, at least once"))
    cards = [card for card in cards if card[1] != "–"]
    boxes = [
        el("div", el("dt", name), el("dd", value), el("p", small) if small else None) for name, value, small in cards
    ]
    refused = [el("p", f"Step {row.step:,}: {row.text}", class_="note") for row in ledger.events if row.event == LAYERS]
    name = el("p", view.facts.model_name, class_="model")
    return el("section", name, el("dl", boxes, class_="cards"), verdict(view), refused)


def verdict(view: RunView) -> Html | None:
    """What the figures say, in sentences, the worst first."""
    if view.ledger.best is None:
        return el("p", "No evaluation has landed yet: there is nothing to judge by.", class_="verdict")
    bad, said = worries(view.facts, view.ledger), progress(view)
    warning = el("p", " ".join(bad), class_="verdict bad") if bad else None
    return el("div", warning, el("p", " ".join(said), class_="verdict"))


def progress(view: RunView) -> list[str]:
    ledger, floor, last = view.ledger, ln_v(view.facts, view.ledger), view.lines[-1]
    assert ledger.best is not None, "there is something to judge by"
    said = []
    if floor is not None and ledger.best.loss < floor:
        away = floor - ledger.best.loss
        said.append(f"The best model is {away:.2f} nats below guessing evenly (ln V = {floor:.2f}).")
    first = next((row for row in ledger.evaluations if math.isfinite(row.loss)), ledger.best)
    since = sum(row.step > ledger.best.step for row in ledger.evaluations)
    if first is not ledger.best:
        said.append(f"Held-out loss fell by {first.loss - ledger.best.loss:.4f} nats since step {first.step}.")
        said += [f"{since} evaluations since then brought no new best."] if since >= 2 else []
    elif since:
        said.append(f"No evaluation is better than the one at step {first.step}: training has not helped so far.")
    if last.gap is not None and math.isfinite(last.gap):
        side = "above" if last.gap > 0 else "below"
        said.append(f"The last held-out loss is {abs(last.gap):.4f} nats {side} the train loss.")
    return said


def curves(view: RunView) -> Html | None:
    pictures = [drawn for chart in charts(view.facts, view.ledger) if (drawn := draw(chart)) is not None]
    return el("section", el("h3", "Curves"), el("div", pictures, class_="charts")) if pictures else None


def evaluations(view: RunView) -> Html | None:
    if not view.lines:
        return None
    rows = [devlog_cells(line) for line in view.lines]
    return el(
        "section", el("h3", "Evaluations"), perplexities(view), table(DEVLOG_HEAD, rows), el("p", _TRAIN, class_="note")
    )


_TRAIN = "train: mean over the tokens of the steps since the row above; Δ: against the row above; gap: val minus train."


def perplexities(view: RunView) -> Html:
    """Before, best and last, for all targets, for new words and for base tokens."""
    every = view.ledger.evaluations
    chosen = {"first": every[0], "best": view.ledger.best, "last": every[-1]}
    rows = [(name, f"{row.step:,}", *_losses(row)) for name, row in chosen.items() if row is not None]
    return table(("", "step", "nats", "perplexity", "bits/byte", "new words, nats", "base tokens, nats"), rows)


def _losses(row: EvaluationRow) -> tuple[str, ...]:
    kinds = figure(row.new_loss), figure(row.base_loss)
    return figure(row.loss), figure(perplexity(row.loss), 1), figure(row.bits_per_byte), *kinds


STRUCTURE = (  # heading, where it stands in an evaluation's figures, where its p does
    ("held out", ("consistency", "held_out"), ("consistency", "held_out_null")),
    ("held-out gain", ("consistency", "held_out_gain"), ("consistency", "held_out_gain_null")),
    ("trained", ("consistency", "trained"), ("trained_nulls", "labels")),
    ("trained gain", ("consistency", "trained_gain"), ("trained_nulls", "labels_gain")),
    ("analogy, first", ("analogy", "acc1"), ()),
    ("by base alone", ("analogy", "nearest_acc1"), ()),
    ("devices", ("devices", "value"), ("devices",)),
    ("devices held out", ("devices", "held_out", "value"), ("devices", "held_out")),
    ("at the start", ("devices", "held_out", "start"), ()),
    ("moved", ("moved", "treated"), ()),
    ("moved, others", ("moved", "untreated"), ()),
)


def structure(view: RunView) -> Html | None:
    """What P3 came to: the cosine of offsets with those of their group, beside p by permutation."""
    every = [row for row in view.ledger.evaluations if row.structure]
    if not every:
        return None
    rows = [(f"{row.step:,}", *(structure_cell(row.structure, *places) for _, *places in STRUCTURE)) for row in every]
    said = (every[-1].structure or {}).get("verdict")
    told = el("p", str(said), class_="verdict") if said else None
    shown = table(("step", *(head for head, *_ in STRUCTURE)), rows)
    return el("section", el("h3", "Structure of the rows"), told, shown)


def structure_cell(found: Any, place: tuple[str, ...], of_p: tuple[str, ...]) -> str:
    value, p = value_at(found, ".".join(place)), value_at(found, ".".join((*of_p, "p"))) if of_p else None
    return figure(value) + (f" (p {p:.3f})" if p is not None else "")


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


def samples(view: RunView) -> Html | None:
    if not view.samples:
        return None
    steps = sorted({row.step for row in view.samples}, reverse=True)
    blocks = [_samples_by_step(view, steps)] if len(steps) > 1 else []
    for step in steps:
        texts = [_sample(row) for row in view.samples if row.step == step]
        blocks.append(
            el(
                "details",
                el("summary", f"Step {step:,}: {counted(len(texts), 'text')}"),
                texts,
                open="" if step == steps[0] else None,
            )
        )
    return el("section", el("h3", "Samples"), blocks)


def _samples_by_step(view: RunView, steps: list[int]) -> Html:
    """Means over the texts of each step, newest last: the same prompt, seeds and temperatures every time."""
    rows = []
    for step in reversed(steps):
        texts = [row for row in view.samples if row.step == step]
        shares = [100 * row.wake_share for row in texts if row.wake_share is not None]
        nats = [row.mean_surprisal for row in texts if row.mean_surprisal is not None]
        runs = [row.overlap_words for row in texts if row.overlap_words is not None]
        share, surprisal = (fmean(found) if found else None for found in (shares, nats))
        rows.append((f"{step:,}", figure(share, 1), figure(surprisal, 2), str(max(runs, default="–"))))
    return table(("step", "new words, %", "nats per token", "longest run shared, words"), rows)


def _sample(row: Any) -> Html:
    share = f"{100 * row.wake_share:.1f} % new words" if row.wake_share is not None else "no words"
    figures = [f"temperature {row.sampling.get('temperature', '–')}", f"seed {row.seed}", share]
    figures.append(f"{figure(row.mean_surprisal, 2)} nats per token")
    if row.overlap_words is not None:
        figures.append(f"longest run shared with the corpus: {counted(row.overlap_words, 'word')}")
    text = el("blockquote", el("b", row.prompt), row.text)
    return el(
        "article",
        el("p", " · ".join(figures), class_="note"),
        text,
        el("p", "Shared: ", row.overlap, class_="note") if row.overlap else None,
    )


def geometry(view: RunView) -> Html | None:
    if view.geometry is None and view.geometry_png is None:
        return None
    parts: list[Child] = []
    found = view.geometry or {}
    measures = [row for row in found.get("measures", ()) if isinstance(row, Mapping)]
    if measures:
        rows = [
            (
                str(row.get("name")),
                value_text(row.get("value")),
                value_text(row.get("chance")),
                str(row.get("text", "")),
            )
            for row in measures
        ]
        parts.append(table(("measure", "measured", "by chance", "what it means"), rows, class_="measures"))
    if view.geometry_png is not None:
        source = "data:image/png;base64," + base64.b64encode(view.geometry_png).decode()
        parts.append(
            el("img", src=source, alt="Six panels: norms, cosines, spectrum, drift, neighbours", class_="plate")
        )
    parts += [_words("Most moved", found.get("most_moved")), _words("Least moved", found.get("least_moved"))]
    near = [row for row in found.get("neighbours", ()) if isinstance(row, Mapping)]
    if near:
        named = [
            (str(row.get("word")), ", ".join(f"{word} {cosine:.2f}" for word, cosine in row.get("near", ())))
            for row in near
        ]
        parts += [el("h4", "Nearest base tokens"), table(("word", "nearest, by cosine"), named)]
    return el("section", el("h3", "Geometry of the new rows"), parts)


def _words(title: str, rows: Any) -> list[Html]:
    listed = [row for row in rows or () if isinstance(row, Mapping)]
    if not listed:
        return []
    cells = [(str(row.get("word")), value_text(row.get("cosine")), value_text(row.get("l2"))) for row in listed]
    return [el("h4", title), table(("word", "cosine to start", "distance"), cells)]
