"""Draw eval/val_loss_curve.png: losses above, learning rate below, and every mark that explains a kink."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import Any

from wake2vec.contract.ledger import Ledger
from wake2vec.show.facts import RunFacts, ln_v
from wake2vec.show.series import running_mean, thin

INK, TRAIN, VAL, BEST, FLOOR, BAD, REGIME = "#1f2430", "#9db7d5", "#c2410c", "#15803d", "#6b7280", "#b91c1c", "#7c3aed"
MARKS = {"oom": (BAD, "x", "out of memory"), "regime": (REGIME, "D", "recorded change (REGIME)")}
NEAR = 0.25  # of the curves' height
MOST_POINTS = 4000  # more than the picture has columns: drawing stays under a second for any run


def draw_curve(name: str, facts: RunFacts, ledger: Ledger) -> bytes:
    """A PNG, 1800 x 1050 pixels. Draws what there is: no evaluations, one row and NaN are all fine."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _sessions((upper, lower), facts)
    _losses(upper, facts, ledger)
    _events(upper, ledger)
    _learning_rate(lower, ledger)
    upper.margins(x=0.015)
    title = f"{name}   {facts.model_name}"
    upper.set_title(title if len(title) < 100 else title[:99] + "…", loc="left", color=INK, parse_math=False)
    _legend(upper)
    body = io.BytesIO()
    with warnings.catch_warnings():
        # a name in a script that the font lacks is drawn as boxes: no reason to lose the picture
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(body, format="png", metadata={"Software": None})
    return body.getvalue()


def _losses(axes: Any, facts: RunFacts, ledger: Ledger) -> None:
    raw = [(row.step, row.loss) for row in ledger.steps if math.isfinite(row.loss)]
    _line(axes, thin(raw, MOST_POINTS), color=TRAIN, linewidth=0.6, alpha=0.6)
    # a lone point has no line to be seen by
    _line(
        axes,
        thin(running_mean(raw), MOST_POINTS),
        color="#2563a8",
        linewidth=1.6,
        label="train (running mean)",
        marker="o" if len(raw) == 1 else "",
    )
    measured = [(row.step, row.loss) for row in ledger.evaluations if math.isfinite(row.loss)]
    _line(axes, measured, color=VAL, linewidth=1.6, marker="o", markersize=3.5, label="held out")
    if ledger.best is not None:
        best = ledger.best
        axes.plot(
            [best.step],
            [best.loss],
            marker="*",
            markersize=14,
            color=BEST,
            linestyle="none",
            zorder=5,
            label=f"best: {best.loss:.4f} at step {best.step}",
        )
        axes.axhline(best.loss, color=BEST, linewidth=0.7, alpha=0.5)
    if (floor := ln_v(facts, ledger)) is not None:
        _floor(axes, floor, [loss for _, loss in (*raw, *measured)])
    every = [(row.step, row.loss) for row in ledger.steps] + [(row.step, row.loss) for row in ledger.evaluations]
    lost = [step for step, loss in every if not math.isfinite(loss)]
    if lost:
        axes.plot(
            lost,
            [0.02] * len(lost),
            marker="|",
            markersize=10,
            color=BAD,
            linestyle="none",
            transform=axes.get_xaxis_transform(),
            label=f"not finite ({len(lost)})",
        )
    if not raw and not measured:
        axes.text(0.5, 0.5, "no loss yet", transform=axes.transAxes, ha="center", color=FLOOR, fontsize=14)
    axes.set_ylabel("nats per token", color=INK)
    _tidy(axes)


def _floor(axes: Any, floor: float, losses: Sequence[float]) -> None:
    """`ln V` as a line where it is near the curves, else in the legend alone: it must not press them flat."""
    low, high = min(losses, default=floor), max(losses, default=floor)
    near, style = (high - low) * NEAR, {"color": FLOOR, "linewidth": 1.1, "linestyle": "--"}
    if low - near <= floor <= high + near:
        axes.axhline(floor, label=f"ln V = {floor:.2f} (guessing)", **style)
    else:
        side = "above" if floor > high else "below"
        axes.plot([], [], label=f"ln V = {floor:.2f} (guessing), {side} the picture", **style)


def _events(axes: Any, ledger: Ledger) -> None:
    for event, (color, marker, label) in MARKS.items():
        steps = [row.step for row in ledger.events if row.event == event]
        if steps:
            axes.plot(
                steps,
                [0.97] * len(steps),
                marker=marker,
                markersize=7,
                color=color,
                linestyle="none",
                transform=axes.get_xaxis_transform(),
                clip_on=False,
                label=f"{label} ({len(steps)})",
            )
        if event == "regime":
            for step in steps:
                axes.axvline(step, color=color, linewidth=1.0, linestyle=":")


def _learning_rate(axes: Any, ledger: Ledger) -> None:
    rates = [(row.step, row.lr) for row in ledger.steps if row.lr is not None and math.isfinite(row.lr)]
    _line(axes, thin(rates, MOST_POINTS), color=INK, linewidth=1.3, marker="o" if len(rates) == 1 else "")
    axes.set_ylabel("learning rate", color=INK)
    axes.set_xlabel("optimizer step", color=INK)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
    axes.set_ylim(bottom=0)
    _tidy(axes)


def _sessions(panels: Sequence[Any], facts: RunFacts) -> None:
    starts = sorted({session.first_step for session in facts.sessions if session.first_step > 0})
    for axes in panels:
        for step in starts:
            axes.axvline(step, color="#d4d4d8", linewidth=0.8, zorder=0)
    if starts:
        panels[0].plot(
            [], [], color="#d4d4d8", linewidth=1.5, label=f"session boundary ({len(facts.sessions)} sessions)"
        )


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize=9, framealpha=0.9, edgecolor="none")


def _line(axes: Any, points: Sequence[tuple[int, float]], **style: Any) -> None:
    if points:
        axes.plot([step for step, _ in points], [value for _, value in points], **style)


def _tidy(axes: Any) -> None:
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
