"""Draw eval/geometry.png: lengths, pairs, axes, drift, lengths by word, largest axes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from wake2vec.show.geometry.analysis import Analysis
from wake2vec.show.geometry.matrix import even_choice
from wake2vec.show.geometry.measures import Doubles

NEW, BASE, CHANCE, INK = "#c2410c", "#2563a8", "#6b7280", "#1f2430"


def draw_plate(title: str, found: Analysis) -> bytes:
    """A PNG of six panels, 2160 x 1200 pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(18, 10), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=14, parse_math=False)
    panels = figure.subplots(2, 3).flatten()
    drawers = (_lengths, _pairs, _variance, _drift, _by_word, _largest)
    for axes, draw in zip(panels, drawers, strict=True):
        draw(axes, found)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=9, frameon=False)
    body = io.BytesIO()
    figure.savefig(body, format="png", metadata={"Software": None})
    return body.getvalue()


def _histogram(axes: Any, parts: list[tuple[Doubles, str, str]]) -> None:
    """Shares, not counts: the parts have different sizes."""
    every = np.concatenate([values for values, _, _ in parts])
    low, high = float(every.min()), float(every.max())
    bins = np.linspace(low, high if high > low else low + 1, 80)
    for values, color, label in parts:
        weights = np.full(len(values), 1 / len(values))
        axes.hist(values, bins=bins, weights=weights, color=color, alpha=0.55, label=label)
    axes.set_ylabel("share")


def _lengths(axes: Any, found: Analysis) -> None:
    parts = [(found.norms_base, BASE, "base tokens"), (found.norms_new, NEW, "new words")]
    _histogram(axes, parts)
    axes.set_title("Length of the rows")
    axes.set_xlabel("L2 norm")


def _pairs(axes: Any, found: Analysis) -> None:
    d = len(found.eigenvalues_random)
    random = np.random.default_rng(0).standard_normal(len(found.pairs_new)) / np.sqrt(d)
    parts = [(random, CHANCE, "random directions"), (found.pairs_base, BASE, "base tokens")]
    _histogram(axes, [*parts, (found.pairs_new, NEW, "new words")])
    axes.set_title("Cosine of two rows")
    axes.set_xlabel("cosine")


def _variance(axes: Any, found: Analysis) -> None:
    for values, color, label in _spectra(found):
        axes.plot(np.arange(1, len(values) + 1), values.cumsum() / max(values.sum(), 1e-300), color=color, label=label)
    axes.set_title("Variance held by the first axes")
    axes.set_xlabel("axes")
    axes.set_xscale("log")
    axes.set_ylim(0, 1.02)


def _drift(axes: Any, found: Analysis) -> None:
    axes.set_title("Cosine of each row to its start")
    if found.drift is None:
        axes.text(0.5, 0.5, "the start is not known", transform=axes.transAxes, ha="center", color=CHANCE)
        return
    parts = [(found.drift.by_chance, CHANCE, "another word's row"), (found.drift.cosine, NEW, "new words")]
    _histogram(axes, parts)
    axes.set_xlabel("cosine")


def _by_word(axes: Any, found: Analysis) -> None:
    rows = even_choice(len(found.norms_new), 20_000)
    size = 1.5 if len(rows) > 2000 else 4
    axes.plot(rows, found.norms_new[rows], ".", color=NEW, markersize=size, alpha=0.5, label="new words")
    axes.axhline(float(found.norms_base.mean()), color=BASE, linewidth=1, label="mean of the base tokens")
    axes.set_title("Length, in the order of the word list")
    axes.set_xlabel("row")
    axes.set_ylabel("L2 norm")


def _largest(axes: Any, found: Analysis) -> None:
    count = min(20, len(found.eigenvalues_new))
    for place, (values, color, label) in enumerate(_spectra(found)):
        share = values[:count] / max(values.sum(), 1e-300)
        axes.bar(np.arange(1, count + 1) + (place - 1) * 0.27, share, width=0.27, color=color, label=label)
    axes.set_title(f"The {count} largest axes")
    axes.set_xlabel("axis")
    axes.set_xticks(range(1, count + 1, 2))
    axes.set_ylabel("share of the variance")


def _spectra(found: Analysis) -> list[tuple[Doubles, str, str]]:
    return [
        (found.eigenvalues_random, CHANCE, "random cloud"),
        (found.eigenvalues_base, BASE, "base tokens"),
        (found.eigenvalues_new, NEW, "new words"),
    ]
