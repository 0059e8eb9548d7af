"""Measure the new rows of a run, and show how they drifted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wake2vec.contract.files import write_atomic, write_json
from wake2vec.contract.manifest import saved_steps
from wake2vec.contract.options import GeometryOptions
from wake2vec.contract.rundir import RunDir
from wake2vec.show.geometry.analysis import Analysis, Sizes, analyse
from wake2vec.show.geometry.film import read_film, with_frame, write_film
from wake2vec.show.geometry.plate import draw_plate
from wake2vec.show.geometry.sources import Side, Sources, open_sources, trained_rows
from wake2vec.show.write import strict

MOVED = 20


def measure(
    run: RunDir,
    *,
    step: int | None = None,
    side: Side = "input",
    sizes: Sizes | None = None,
    say: Callable[[str], None],
) -> list[Path]:
    """Write eval/geometry.json and eval/geometry.png (`-output` for that side); returns them."""
    sources = open_sources(run, step=step, side=side)
    found = analyse(sources.new, sources.base, sources.start, sizes=sizes, say=say)
    ending = "" if side == "input" else f"-{side}"
    table, plate = (run.evaluation / f"geometry{ending}.{kind}" for kind in ("json", "png"))
    write_json(table, strict(as_table(found, sources, side)), durable=False)
    title = f"{run.root.resolve().name}, {side} rows at step {sources.step}"
    write_atomic(plate, draw_plate(title, found), durable=False)
    return [table, plate]


def write_the_film(run: RunDir) -> Path | None:
    """The frames that the trainer kept, and one of each checkpoint there is that it kept none of."""
    sources, film = open_sources(run), read_film(run)
    words, there = sources.id_map.words, {int(step) for step in film["frames"]} if film else set()
    if sources.start is not None and 0 not in there:
        film = with_frame(film, 0, sources.start, sources.base, words)
    for step in set(saved_steps(run)) - there:
        film = with_frame(film, step, trained_rows(run, step, "input")[1], sources.base, words)
    return write_film(run, run.root.resolve().name, film)


def as_table(found: Analysis, sources: Sources, side: Side) -> dict[str, Any]:
    """What geometry.json holds."""
    words = sources.id_map.words

    def named(rows: Any) -> list[dict[str, Any]]:
        return [{"word": words[moved.row], **asdict(moved)} for moved in rows]

    return {
        "format": 1,
        "side": side,
        "step": sources.step,
        "n_new": sources.new.shape[0],
        "n_base": sources.base.shape[0],
        "d": sources.new.shape[1],
        "measures": [asdict(measure) for measure in found.measures],
        "no_start": sources.no_start,
        "most_moved": named(found.drift.most(MOVED)) if found.drift else [],
        "least_moved": named(found.drift.least(MOVED)) if found.drift else [],
        "neighbours": [
            {"word": words[row], "near": [[sources.token(id), cosine] for id, cosine in near]}
            for row, near in found.neighbours.items()
        ],
    }


def run(options: GeometryOptions) -> None:
    directory = RunDir(root=options.run)
    written = measure(directory, step=options.step, side=options.side, say=_say)
    for path in (*written, write_the_film(directory)):
        if path is not None:
            print(path)


def _say(text: str) -> None:
    print(f"measuring {text}", file=sys.stderr, flush=True)
