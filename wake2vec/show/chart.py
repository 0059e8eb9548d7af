"""What a chart holds, whoever draws it: lines over steps, levels, borders and marks. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]
Level = tuple[float, str, str]  # y, label, look
NEAR = 0.25  # of the curves' height: a level that is farther away would press them flat
# of each look, on a light page
COLOURS = {
    "train": "#2563a8",
    "val": "#c2410c",
    "best": "#15803d",
    "floor": "#6b7280",
    "oom": "#b91c1c",
    "regime": "#7c3aed",
    "ink": "#1f2430",
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line. `look` names its colour; dots carry their figures as a tooltip where there are such."""

    name: str
    points: Sequence[Point]
    look: str
    dots: bool = False
    faint: bool = False


@dataclass(frozen=True, kw_only=True)
class ChartMark:
    """Something at a step: what it is called, and what it was."""

    x: float
    look: str
    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    title: str
    y_label: str
    series: Sequence[Series]
    levels: Sequence[Level] = ()
    borders: Sequence[float] = ()  # thin lines at these steps
    marks: Sequence[ChartMark] = ()
    from_zero: bool = False
    small: bool = False  # two beside each other where there is room
    note: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether there is not one finite point."""
        return not any(finite(series.points) for series in self.series)

    def levels_in_sight(self) -> tuple[list[Level], list[str]]:
        """Levels near the curves, and where the others lie."""
        heights = [y for series in self.series for _, y in finite(series.points)] or [y for y, *_ in self.levels]
        low, high = min(heights, default=0.0), max(heights, default=0.0)
        near = (high - low) * NEAR
        inside = [level for level in self.levels if low - near <= level[0] <= high + near]
        away = [level for level in self.levels if not low - near <= level[0] <= high + near]
        return inside, [f"{label} lies {'above' if y > high else 'below'} the picture" for y, label, _ in away]


def finite(points: Sequence[Point]) -> list[Point]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
