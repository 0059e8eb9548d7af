"""Measurements, a room for each question; a module also runs by its name alone, as older reports say it."""

from pathlib import Path

# `python -m bench.p1` is `python -m bench.speed.p1`: reports, notes and issues on older versions name the first
__path__ += sorted(str(room.parent) for room in Path(__file__).parent.glob("*/__init__.py"))
