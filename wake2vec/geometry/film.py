"""The drift film: where new rows lie among the base rows, milestone after milestone, in one HTML file.

A frame is a few kilobytes and is kept in eval/film.json, so the film goes on after its checkpoint is pruned.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wake2vec.files import read_json, write_atomic
from wake2vec.geometry.film_page import PAGE
from wake2vec.geometry.matrix import Matrix, even_choice
from wake2vec.geometry.measures import Doubles
from wake2vec.rundir import RunDir

WORDS, BACKGROUND, SAMPLE = 1200, 1500, 5000


def add_frame(run: RunDir, step: int, rows: Matrix, base: Matrix, words: Sequence[str]) -> None:
    """Put where `rows` lie at `step` into eval/film.json; a frame of the same step is replaced."""
    path = run.evaluation / "film.json"
    kept = read_json(path)
    film = kept if isinstance(kept, dict) and _fits(kept, rows) else _begin(base, rows, words)
    origin, axes = np.array(film["origin"]), np.array(film["axes"])
    places = np.array(film["rows"], dtype=np.int64)
    flat = (rows.take(places).astype(np.float64) - origin) @ axes.T  # [words, 2]
    film["frames"][str(step)] = _short(flat)
    write_atomic(path, json.dumps(film, ensure_ascii=False).encode(), durable=False)


def frames_of(run: RunDir) -> set[int]:
    """Steps that the film already shows."""
    film = read_json(run.evaluation / "film.json")
    return {int(step) for step in film["frames"]} if isinstance(film, dict) and "frames" in film else set()


def write_film(run: RunDir, title: str) -> Path | None:
    """eval/geometry_film.html from the frames there are; None where there are none."""
    film = read_json(run.evaluation / "film.json")
    if not isinstance(film, dict) or not film.get("frames"):
        return None
    steps = sorted(film["frames"], key=int)
    shown = {
        "title": title,
        "words": film["words"],
        "background": film["background"],
        "steps": [int(step) for step in steps],
        "frames": [film["frames"][step] for step in steps],
    }
    # "<" would let a word end the script
    data = json.dumps(shown, ensure_ascii=False).replace("<", "\\u003c").replace("\u2028", " ").replace("\u2029", " ")
    path = run.evaluation / "geometry_film.html"
    write_atomic(path, PAGE.replace("__DATA__", data).encode("utf-8", "replace"), durable=False)
    return path


def _begin(base: Matrix, rows: Matrix, words: Sequence[str]) -> dict[str, Any]:
    """The picture plane: the two axes along which the base rows spread most. It stays the same for the whole film."""
    sample = base.take(even_choice(base.shape[0], SAMPLE)).astype(np.float64)
    origin = sample.mean(0)
    axes = _first_axes(sample - origin)
    places = even_choice(rows.shape[0], WORDS)
    background = (sample[even_choice(len(sample), BACKGROUND)] - origin) @ axes.T
    return {
        "format": 1,
        "rows": places.tolist(),
        "words": [words[place] for place in places],
        "origin": np.round(origin, 6).tolist(),
        "axes": np.round(axes, 6).tolist(),
        "background": _short(background),
        "frames": {},
    }


def _first_axes(centred: Doubles, count: int = 2, rounds: int = 30) -> Doubles:
    """The first right singular vectors, by subspace iteration from a fixed start. [count, d]"""
    axes = np.linalg.qr(np.random.default_rng(42).standard_normal((centred.shape[1], count)))[0]
    for _ in range(rounds):
        axes = np.linalg.qr(centred.T @ (centred @ axes))[0]
    strength = np.linalg.norm(centred @ axes, axis=0)
    found: Doubles = axes.T[np.argsort(-strength)]
    return found


def _fits(film: dict[str, Any], rows: Matrix) -> bool:
    try:
        return len(film["origin"]) == rows.shape[1] and max(film["rows"]) < rows.shape[0] and "frames" in film
    except (TypeError, KeyError, ValueError):
        return False


def _short(points: Doubles) -> list[list[float]]:
    return [[float(f"{x:.4g}"), float(f"{y:.4g}")] for x, y in points]
