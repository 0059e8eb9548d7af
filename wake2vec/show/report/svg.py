"""Draw a chart as SVG, coloured by the page's style sheet, once for a wide screen and once for a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from wake2vec.show.chart import Chart, ChartMark, Series, finite
from wake2vec.show.report.html import Html, el
from wake2vec.show.series import thin

LEFT, RIGHT, TOP, BOTTOM = 58, 24, 14, 34  # margins that hold the labels, in pixels


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """From figures to pixels."""

    width: int
    height: int
    x: tuple[float, float]
    y: tuple[float, float]
    ticks_x: Sequence[float] = field(default=())
    ticks_y: Sequence[float] = field(default=())

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        inner_width, inner_height = self.width - LEFT - RIGHT, self.height - TOP - BOTTOM
        return round(LEFT + across * inner_width, 1), round(TOP + (1 - up) * inner_height, 1)


def draw(chart: Chart) -> Html | None:
    """Title, legend and both sizes; None where there is not one finite point."""
    if chart.is_empty:
        return None
    inside, away = chart.levels_in_sight()
    chart = replace(chart, levels=inside, note=" ".join([*(f"{said}." for said in away), *filter(None, [chart.note])]))
    return el(
        "figure",
        el("figcaption", el("b", chart.title), _legend(chart)),
        _svg(chart, *((500, 230) if chart.small else (960, 330)), "for-wide"),
        _svg(chart, 360, 220 if chart.small else 260, "for-narrow"),
        el("p", chart.note, class_="note") if chart.note else None,
        class_="small" if chart.small else None,
    )


def _legend(chart: Chart) -> Html:
    named = [series for series in chart.series if not series.faint and finite(series.points)]
    entries = [el("span", el("i", class_=f"key {series.look}"), series.name) for series in named]
    entries += [el("span", el("i", class_=f"key dashed {look}"), label) for _, label, look in chart.levels]
    kinds = {mark.look: mark.name for mark in chart.marks}
    entries += [el("span", el("i", class_=f"key dot {look}"), text) for look, text in kinds.items()]
    if chart.borders:
        entries.append(el("span", el("i", class_="key border"), f"session boundary ({len(chart.borders)})"))
    return el("span", entries, class_="legend")


def _svg(chart: Chart, width: int, height: int, class_: str) -> Html:
    frame = _frame(chart, width, height)
    # more points than pixels cost bytes and show nothing
    lines = [_line(series, frame, most=width * 2) for series in chart.series]
    return el(
        "svg",
        _grid(chart, frame),
        [_across(frame, x, "border") for x in chart.borders],
        [_level(frame, y, look) for y, _, look in chart.levels],
        lines,
        [_mark(frame, mark) for mark in chart.marks],
        viewBox=f"0 0 {width} {height}",
        class_=class_,
        role="img",
        aria_label=chart.title,
    )


def _frame(chart: Chart, width: int, height: int) -> _Frame:
    points = [point for series in chart.series for point in finite(series.points)]
    heights = [y for _, y in points] + [y for y, _, _ in chart.levels if math.isfinite(y)]
    low, high = (0.0 if chart.from_zero else min(heights)), max(heights)
    padding = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    y = (low if chart.from_zero and low >= 0 else low - padding, high + padding)
    steps = [x for x, _ in points] + [mark.x for mark in chart.marks]
    first, last = min(steps), max(steps)
    x = (first, last) if last > first else (first - 0.5, last + 0.5)
    return _Frame(
        width=width, height=height, x=x, y=y, ticks_x=ticks(*x, most=width // 90), ticks_y=ticks(*y, most=height // 45)
    )


def ticks(low: float, high: float, *, most: int) -> list[float]:
    """Round figures, at most `most` of them, within a range: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + place) * step, 12) for place in range(count)]


def _grid(chart: Chart, frame: _Frame) -> list[Html]:
    parts = [el("text", "optimizer step", x=frame.width - RIGHT, y=frame.height - 3, text_anchor="end", class_="axis")]
    parts.append(el("text", chart.y_label, x=4, y=TOP - 3, class_="axis"))
    for value in frame.ticks_y:
        _, y = frame.at(frame.x[0], value)
        parts.append(el("line", x1=LEFT, x2=frame.width - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(el("text", _short(value), x=LEFT - 6, y=y + 4, text_anchor="end"))
    for value in frame.ticks_x:
        x, _ = frame.at(value, frame.y[0])
        parts.append(el("text", _short(value), x=x, y=frame.height - BOTTOM + 16, text_anchor="middle"))
    return parts


def _line(series: Series, frame: _Frame, *, most: int) -> list[Html]:
    points = [frame.at(x, y) for x, y in thin(finite(series.points), most)]
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    class_ = f"line {series.look}" + (" faint" if series.faint else "")
    parts = [el("polyline", points=path, class_=class_)]
    if series.dots or len(points) == 1:
        for x, y in finite(series.points):
            px, py = frame.at(x, y)
            tip = el("title", f"{series.name}: {y:.6g} at {x:g}")
            parts.append(el("circle", tip, cx=px, cy=py, r=3, class_=f"dot {series.look}"))
    return parts


def _across(frame: _Frame, x: float, look: str) -> Html | None:
    if not frame.x[0] <= x <= frame.x[1]:
        return None
    px, _ = frame.at(x, frame.y[0])
    return el("line", x1=px, x2=px, y1=TOP, y2=frame.height - BOTTOM, class_=look)


def _level(frame: _Frame, y: float, look: str) -> Html | None:
    if not math.isfinite(y):
        return None
    _, py = frame.at(frame.x[0], y)
    return el("line", x1=LEFT, x2=frame.width - RIGHT, y1=py, y2=py, class_=f"level {look}")


def _mark(frame: _Frame, mark: ChartMark) -> Html:
    px, _ = frame.at(mark.x, frame.y[0])
    tip = el("title", f"{mark.name}{mark.text and f': {mark.text}'} (step {mark.x:g})")
    return el("circle", tip, cx=px, cy=TOP + 4, r=4, class_=f"dot {mark.look}")


def _short(value: float) -> str:
    """A tick's label in few characters: 3,000 and 0.05, but 5e-4."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e7:
        mantissa, exponent = f"{value:.3g}".split("e") if "e" in f"{value:.3g}" else (f"{value:.1e}".split("e"))
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:,.10g}"
