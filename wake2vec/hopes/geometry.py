"""Geometry kept: how the new rows lie among the published ones, and how far they and the published ones have moved."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from wake2vec.contract.errors import InputError
from wake2vec.hopes.reader import Subject
from wake2vec.hopes.resampling import interval_of, mean_interval
from wake2vec.show.geometry import measures
from wake2vec.show.geometry.matrix import Matrix, even_choice, unit
from wake2vec.show.geometry.measures import Doubles
from wake2vec.show.geometry.sources import Side, Sources, open_sources, published
from wake2vec.show.hopes import Figure, Hope

ROWS = 256  # of each kind that are compared in pairs
DRAWS = 100
NOTHING_MOVES = (
    "Geometry: {what} stand still in this job and lie as before, which says nothing of training; the last states of "
    "the body are what can move."
)


def geometry(subject: Subject) -> Iterator[Figure | str]:
    """Of what trains alone: where nothing can move, that is said instead."""
    job = subject.order.training
    trains = "rows" if job.lora is None else job.lora.train
    if trains == "lora":
        yield NOTHING_MOVES.format(what="all rows, new and published,")
        return
    separate = subject.model.get_input_embeddings().rows is not subject.model.get_output_embeddings().rows
    sides: tuple[Side, ...] = ("input", "output") if separate else ("input",)
    for side in sides:
        yield from of_rows(open_sources(subject.run, step=None, side=side), side)
    if trains == "all":
        yield published_moved(subject)
    else:
        yield "Geometry: published rows cannot move in this job, so only the new ones are measured, against those."


def of_rows(sources: Sources, side: Side) -> Iterator[Figure | str]:
    new, base = (chosen(matrix) for matrix in (sources.new, sources.base))
    chance = np.random.default_rng(42)
    places = chance.permutation(sources.base.shape[0])[: 2 * len(new)]
    halves = [sources.base.take(np.sort(half)).astype(np.float64) for half in np.array_split(places, 2)]
    mean = float(np.linalg.norm(base, axis=1).mean())
    lengths, luck = (np.linalg.norm(rows, axis=1) / mean for rows in (new, halves[0]))
    yield rows_figure(side, "length", "length, published rows 1", lengths, float(luck.mean()), "published rows again")
    known, near = measures.pairwise_cosines(base), unit(new)

    def unlike(drawn: npt.NDArray[np.int64]) -> float:
        return measures.kolmogorov_smirnov(measures.pairwise_cosines(near[drawn]), known)

    low, high = interval_of(len(new), lambda drawn: unlike(np.unique(drawn)), DRAWS)
    one, other = (measures.pairwise_cosines(half) for half in halves)
    yield Figure(
        hope=Hope.GEOMETRY, key=f"pairs.{side}", name=f"{side} rows, cosines of pairs unlike the published",
        value=unlike(np.arange(len(near))), low=low, high=high,
        null=measures.kolmogorov_smirnov(one, other), of=len(new), unit="rows",
        text="Kolmogorov-Smirnov distance, 0 to 1; by chance: two random parts of the published rows",
    )  # fmt: skip
    if sources.start is None:
        yield f"Geometry: how far {side} rows have turned is not known: {sources.no_start}."
    else:
        before = chosen(sources.start)
        turned, luck = measures.cosines(before, new), measures.cosines(before, np.roll(new, 1, axis=0))
        yield rows_figure(side, "turned", "cosine to the start", turned, float(luck.mean()), "another word's start")


def rows_figure(side: Side, key: str, name: str, values: Doubles, null: float, luck: str) -> Figure:
    low, high = mean_interval(values)
    return Figure(
        hope=Hope.GEOMETRY, key=f"{key}.{side}", name=f"{side} rows, {name}", value=float(values.mean()), low=low,
        high=high, null=null, of=len(values), unit="rows", text=f"by chance: {luck}",
    )  # fmt: skip


def published_moved(subject: Subject) -> Figure:
    """Where every weight trains, the published input rows do too."""
    was = published(subject.order, "input")
    places = even_choice(subject.id_map.first_new_id, ROWS)
    now = subject.model.get_input_embeddings().base
    with torch.no_grad():
        rows = now.lookup(torch.from_numpy(places).to(now.device)).float().cpu().numpy().astype(np.float64)
    before = was.take(places).astype(np.float64)
    turned, luck = measures.cosines(before, rows), measures.cosines(before, np.roll(rows, 1, axis=0))
    low, high = mean_interval(turned)
    return Figure(
        hope=Hope.GEOMETRY, key="published.input", name="published input rows, cosine to what they were",
        value=float(turned.mean()), low=low, high=high, null=float(luck.mean()), of=len(turned), unit="rows",
        text="by chance: another token's row",
    )  # fmt: skip


def chosen(matrix: Matrix) -> Doubles:
    """An even choice of its rows, the same ones every time. Raises InputError where they are too few."""
    if matrix.shape[0] < 4:
        raise InputError("geometry", f"{matrix.shape[0]} rows are too few to measure", "add words to the lexicon")
    return matrix.take(even_choice(matrix.shape[0], ROWS)).astype(np.float64)
