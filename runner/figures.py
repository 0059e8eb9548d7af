"""Numbers as a person reads them: durations, sizes, bars and small curves. Pure."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Sequence

from wake2vec.contract.files import size as size

LEVELS = "▁▂▃▄▅▆▇█"
ASCII_LEVELS = "_.-=+*#@"


def duration(seconds: float | None) -> str:
    """`41 s`, `3.4 min`, `1 h 12 min`, `2 d 3 h`."""
    if seconds is None:
        return "?"
    if seconds < 99.5:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min" if seconds < 600 else f"{seconds / 60:.0f} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def hours(seconds: float) -> str:
    """A time at work: in hours however long, because a day of a job is not a day of a calendar."""
    return f"{seconds / 3600:,.0f} h" if seconds >= 36_000 else duration(seconds)


def pace(seconds: float) -> str:
    return f"{seconds:.1f} s/step" if seconds >= 1 else f"{1e3 * seconds:.0f} ms/step"


def day(at: float) -> str:
    """`3 Dec, 14:00`, in the time zone of this machine; to the hour, since no forecast is better."""
    when = time.localtime(at)
    return f"{when.tm_mday} {time.strftime('%b, %H', when)}:00"


def loss(value: float | None) -> str:
    """Nats; what is no number is shown as what it is."""
    if value is None:
        return "?"
    return f"{value:.3f}" if math.isfinite(value) else str(value)


def bar(done: float, width: int, *, ascii_only: bool = False) -> str:
    """A filled bar; `done` from 0 to 1. Full only when done, empty only when nothing is."""
    share = min(max(done, 0.0), 1.0)
    full = math.floor(share * width) if share < 1 else width
    full = max(full, 1) if share > 0 and width else full
    return ("#" if ascii_only else "█") * full + ("." if ascii_only else "░") * (width - full)


def segment_bar(done: int, present: float, total: int, width: int, *, ascii_only: bool = False) -> str:
    """One piece for each segment while they fit, else a plain bar; `present` is the share done of the one that runs."""
    if total < 1:
        return ""
    if total * 2 - 1 > width:
        return bar((done + present) / total, width, ascii_only=ascii_only)
    piece = (width - total + 1) // total
    shares = [1.0] * done + [present] * (done < total) + [0.0] * (total - done - 1)
    return " ".join(bar(share, piece, ascii_only=ascii_only) for share in shares[:total])


def curve(values: Sequence[float], width: int, *, ascii_only: bool = False) -> str:
    """A curve in one line, scaled between its own lowest and highest value."""
    points = thinned(finite(values), width)
    if not points:
        return ""
    levels = ASCII_LEVELS if ascii_only else LEVELS
    low, high = min(points), max(points)
    if high == low:
        return levels[0] * len(points)
    return "".join(levels[round((point - low) / (high - low) * (len(levels) - 1))] for point in points)


def plain(text: str) -> str:
    """The same text in ASCII, for terminals that know nothing else."""
    for fancy, simple in (("·", "-"), ("→", "->"), ("…", "..."), ("─", "-"), ("█", "#"), ("░", ".")):
        text = text.replace(fancy, simple)
    return text.encode("ascii", "replace").decode()


def finite(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def thinned(values: Sequence[float], width: int) -> list[float]:
    """At most `width` means of neighbours, so that a long curve fits a line."""
    if len(values) <= width:
        return list(values)
    edges = [round(index * len(values) / width) for index in range(width + 1)]
    return [statistics.fmean(values[start:end]) for start, end in itertools.pairwise(edges)]
