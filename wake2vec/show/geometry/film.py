"""The drift film: where new rows lie among the base rows, milestone after milestone, in one HTML file.

A frame is a few kilobytes. The trainer keeps one of each milestone in eval/film.json, and in its checkpoints, so that
the film outlives both the checkpoint and the machine.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wake2vec.contract.files import read_json, write_atomic
from wake2vec.contract.rundir import RunDir
from wake2vec.show.geometry.film_page import PAGE
from wake2vec.show.geometry.matrix import Array, Matrix, even_choice
from wake2vec.show.geometry.measures import Doubles

WORDS, BACKGROUND, SAMPLE = 1200, 1500, 5000
Film = dict[str, Any]


def add_frame(run: RunDir, step: int, rows: Matrix, base: Matrix, words: Sequence[str]) -> None:
    """Put where `rows` lie at `step` into eval/film.json; a frame of the same step is replaced."""
    _write(run, with_frame(read_film(run), step, rows, base, words))


def with_frame(film: Film | None, step: int, rows: Matrix, base: Matrix, words: Sequence[str]) -> Film:
    """The film with one more frame; it begins anew where it was of other rows."""
    if film is None or not _fits(film, rows):
        film = _begin(base, rows, words)
    origin, axes = np.array(film["origin"]), np.array(film["axes"])
    places = np.array(film["rows"], dtype=np.int64)
    flat = (rows.take(places).astype(np.float64) - origin) @ axes.T  # [words, 2]
    return film | {"frames": film["frames"] | {str(step): _short(flat)}}


def read_film(run: RunDir) -> Film | None:
    film = read_json(run.evaluation / "film.json")
    return film if isinstance(film, dict) and isinstance(film.get("frames"), dict) else None


def put_back(run: RunDir, film: Film | None, until: int) -> None:
    """Join a film that came in a checkpoint with the one that is here, up to a step."""
    here = read_film(run)
    if here is None and film is None:
        return
    joined = here or film or {}
    frames = (film["frames"] if film and film.get("axes") == joined.get("axes") else {}) | joined["frames"]
    _write(run, joined | {"frames": {step: frame for step, frame in frames.items() if int(step) <= until}})


def write_film(run: RunDir, title: str, film: Film | None) -> Path | None:
    """eval/geometry_film.html: new rows among the base rows at each step that has a frame; None where none has."""
    if film is None or not film["frames"]:
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


def _write(run: RunDir, film: Film) -> None:
    write_atomic(run.evaluation / "film.json", json.dumps(film, ensure_ascii=False).encode(), durable=False)


def _begin(base: Matrix, rows: Matrix, words: Sequence[str]) -> Film:
    """The picture plane: the two axes along which the base rows spread most. It stays the same for the whole film."""
    sample = base.take(even_choice(base.shape[0], SAMPLE))
    origin = sample.mean(0, dtype=np.float64)
    sample -= origin.astype(np.float32)
    axes = _first_axes(sample)
    places = even_choice(rows.shape[0], WORDS)
    background = sample[even_choice(len(sample), BACKGROUND)] @ axes.T
    return {
        "format": 1,
        "rows": places.tolist(),
        "words": [words[place] for place in places],
        "origin": np.round(origin, 6).tolist(),
        "axes": np.round(axes, 6).tolist(),
        "background": _short(background),
        "frames": {},
    }


def _first_axes(centred: Array, count: int = 2, rounds: int = 30) -> Doubles:
    """The first right singular vectors, by subspace iteration from a fixed start. [count, d]"""
    start = np.random.default_rng(42).standard_normal((centred.shape[1], count))
    axes = np.linalg.qr(start.astype(np.float32))[0]
    for _ in range(rounds):
        axes = np.linalg.qr(centred.T @ (centred @ axes))[0]
    strength = np.linalg.norm(centred @ axes, axis=0)
    found: Doubles = axes.T[np.argsort(-strength)].astype(np.float64)
    return found


def _fits(film: Film, rows: Matrix) -> bool:
    try:
        return len(film["origin"]) == rows.shape[1] and max(film["rows"]) < rows.shape[0] and "frames" in film
    except (TypeError, KeyError, ValueError):
        return False


def _short(points: Doubles) -> list[list[float]]:
    return [[float(f"{x:.4g}"), float(f"{y:.4g}")] for x, y in points]
