"""Draw eval/val_loss_curve.png: losses above, learning rate below, and every mark that explains a kink."""

from __future__ import annotations

import io
import math
import warnings
from collections import Counter
from typing import Any

from wake2vec.contract.ledger import Ledger
from wake2vec.show.chart import COLOURS, Chart, finite
from wake2vec.show.curves import learning_rate, losses
from wake2vec.show.facts import RunFacts
from wake2vec.show.series import thin

INK, BORDER = COLOURS["ink"], "#d4d4d8"
SHAPES = {"oom": "x", "regime": "D"}
MOST_POINTS = 4000  # more than the picture has columns: drawing stays under a second for any run


def draw_curve(name: str, facts: RunFacts, ledger: Ledger) -> bytes:
    """A PNG, 1800 x 1050 pixels. Draws what there is: no evaluations, one row and NaN are all fine."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.07, right=0.99, top=0.94, bottom=0.075, hspace=0.1)  # fitted, it takes twice as long
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    draw(upper, chart := losses(facts, ledger))
    if chart.is_empty:
        grey = COLOURS["floor"]
        upper.text(0.5, 0.5, "no loss yet", transform=upper.transAxes, ha="center", color=grey, fontsize=14)
    if (best := ledger.best) is not None:
        upper.plot([best.step], [best.loss], marker="*", markersize=14, color=COLOURS["best"], zorder=5)
    draw(lower, learning_rate(facts, ledger))
    upper.margins(x=0.015)
    title = f"{name}   {facts.model_name}"
    upper.set_title(title if len(title) < 100 else title[:99] + "…", loc="left", color=INK, parse_math=False)
    if upper.get_legend_handles_labels()[0]:
        upper.legend(loc="best", fontsize=9, framealpha=0.9, edgecolor="none")
    lower.set_ylabel("learning rate", color=INK)
    lower.set_xlabel("optimizer step", color=INK)
    lower.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
    lower.set_ylim(bottom=0)
    body = io.BytesIO()
    with warnings.catch_warnings():
        # a name in a script that the font lacks is drawn as boxes: no reason to lose the picture
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(body, format="png", metadata={"Software": None})
    return body.getvalue()


def draw(axes: Any, chart: Chart) -> None:
    for x in chart.borders:
        axes.axvline(x, color=BORDER, linewidth=0.8, zorder=0)
    if chart.borders:
        axes.plot([], [], color=BORDER, linewidth=1.5, label=f"session boundary ({len(chart.borders)})")
    for series in chart.series:
        if points := thin(finite(series.points), MOST_POINTS):
            axes.plot(
                *zip(*points, strict=True),
                color=COLOURS[series.look],
                linewidth=0.6 if series.faint else 1.6,
                alpha=0.4 if series.faint else 1.0,
                marker="o" if series.dots or len(points) == 1 else "",  # a lone point has no line to be seen by
                markersize=3.5,
                label=None if series.faint else series.name,
            )
    inside, away = chart.levels_in_sight()
    for y, label, look in inside:
        axes.axhline(y, label=label, color=COLOURS[look], linewidth=1.1, linestyle="--")
    for said in away:
        axes.plot([], [], label=said, color=COLOURS["floor"], linewidth=1.1, linestyle="--")
    _marks(axes, chart)
    axes.set_ylabel(chart.y_label, color=INK)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)


def _marks(axes: Any, chart: Chart) -> None:
    """Events along the upper edge, figures that are no numbers along the lower one."""

    def along(steps: list[float], height: float, **style: Any) -> None:
        if steps:
            place = {"linestyle": "none", "transform": axes.get_xaxis_transform(), "clip_on": False}
            axes.plot(steps, [height] * len(steps), **place, **style)

    for look, count in Counter(mark.look for mark in chart.marks).items():
        steps = [mark.x for mark in chart.marks if mark.look == look]
        label = f"{next(mark.name for mark in chart.marks if mark.look == look)} ({count})"
        along(steps, 0.97, marker=SHAPES[look], markersize=7, color=COLOURS[look], label=label)
        for step in steps if look == "regime" else ():
            axes.axvline(step, color=COLOURS[look], linewidth=1.0, linestyle=":")
    lost = [x for series in chart.series for x, y in series.points if not math.isfinite(y)]
    along(lost, 0.02, marker="|", markersize=10, color=COLOURS["oom"], label=f"not finite ({len(lost)})")
