"""The auxiliary part of a step: once per optimizer step, in fp32, on the rows that the groups name, whatever the plan.

It has no state: what a step adds follows from the rows and the step's number, so cuts and plans change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wake2vec.contract.tables import DevicesTable, GeometryTable, MorphemesTable
from wake2vec.structure import draws, losses, measures
from wake2vec.structure.chosen import Chosen, draw_triplets
from wake2vec.structure.devices import device_classes, held_out_devices
from wake2vec.structure.verdict import verdict

REPELLED = 100  # drawn pairs of rows
DOMINATES = 0.5  # share of the gradient on touched rows that is no longer auxiliary


@dataclass(frozen=True, kw_only=True)
class Side:
    """One matrix that takes on the structure."""

    name: str
    rows: nn.Parameter  # [n_new, d]
    base: Tensor  # [f, d] fp32, the published rows among the points
    start: Tensor  # [t, d] fp32 on the host: where the touched rows began
    untouched_start: Tensor  # [t, d] of as many rows of like frequency that no group names
    mean_norm: float  # of published rows
    norm_deviation: float


class Auxiliary:
    """What [morphemes], [devices] and [geometry] add to the gradient, and what the rows have of it."""

    def __init__(
        self,
        chosen: Chosen,
        sides: Sequence[Side],
        untouched: Tensor,
        *,
        morphemes: MorphemesTable,
        devices: DevicesTable | None,
        geometry: GeometryTable,
        seed: int,
        told: Sequence[str] = (),
    ) -> None:
        """`untouched` [u]: rows outside the groups that the touched ones are compared with."""
        self.chosen, self._sides, self._untouched, self.told = chosen, sides, untouched, tuple(told)
        self._morphemes, self._devices, self._geometry, self._seed = morphemes, devices, geometry, seed
        self._weights = chosen.weights(morphemes.group_weight)

    @property
    def acts(self) -> bool:
        """With both weights 0 nothing of it acts: the control run."""
        return bool(self._morphemes.weight or (self._devices and self._devices.weight))

    def named(self, n_new: int) -> Tensor:
        """Rows that stand in a group: they count as met, with or without a weight. [n_new] bool"""
        return torch.zeros(n_new, dtype=torch.bool).index_fill_(0, self.chosen.rows, True)

    def strength(self, step: int) -> float:
        """0 before start_step, then rising to 1: not together with the warm-up of the learning rate."""
        since = step - self._geometry.start_step + 1
        return min(1.0, max(0.0, since / max(1, self._geometry.ramp_steps)))

    def add_gradients(self, step: int, scale: float) -> dict[str, Any] | None:
        """Add `scale` times the gradient to that of the text; what each term came to, None where nothing acts."""
        strength = self.strength(step)
        if not self.acts or not strength:
            return None
        told: dict[str, Any] = {"strength": round(strength, 6)}
        for side in self._sides:
            rows = self.chosen.rows.to(side.rows.device)
            assert side.rows.grad is not None, "the text was there first"
            text = float(torch.linalg.vector_norm(side.rows.grad[rows])) / scale
            points = side.rows.detach()[rows].float().requires_grad_()  # [t, d]
            total = torch.zeros_like(points, requires_grad=False)
            found: dict[str, Any] = {}
            for name, weight, value in self._terms(points, side, step):
                (gradient,) = torch.autograd.grad(value, points, retain_graph=True)
                gradient = gradient * (weight * strength)
                found[name] = {"loss": float(value.detach()), "grad": float(torch.linalg.vector_norm(gradient))}
                total += gradient
            side.rows.grad[rows] += total * scale
            own = float(torch.linalg.vector_norm(total))
            told[side.name] = found | {"text_grad": text, "share": own / (own + text) if own + text else 0.0}
        return told

    def _terms(self, points: Tensor, side: Side, step: int) -> Iterator[tuple[str, float, Tensor]]:
        """Name, weight and value of each term that acts."""
        chosen, morphemes, devices, geometry = self.chosen, self._morphemes, self._devices, self._geometry
        words = chosen.vectors(torch.cat([points, side.base.to(points)]))  # [words, d]
        if morphemes.weight and len(chosen.labels):
            member, weights = chosen.labels.member(len(chosen.groups), points), self._weights.to(points)
            if morphemes.loss == "contrast":
                pairs = words[chosen.labels.word.to(words.device)], words[chosen.labels.base.to(words.device)]
                yield "morphemes", morphemes.weight, losses.contrast(*pairs, member, weights)
            else:
                loss = losses.cosine if morphemes.loss == "cosine" else losses.offset
                yield "morphemes", morphemes.weight, loss(chosen.labels.offsets(words), member, weights)
        if devices and devices.weight:
            drawn = draw_triplets(chosen, seed=self._seed, step=step, count=devices.triplets, balance=devices.balance)
            if len(drawn.anchor):
                anchor, positive, negative = (
                    words[one.to(words.device)] for one in (drawn.anchor, drawn.positive, drawn.negative)
                )
                yield "devices", devices.weight, losses.triplets(anchor, positive, negative, devices.margin)
        if geometry.anchor:
            yield "anchor", geometry.anchor, losses.anchor(points, side.start.to(points))
        if geometry.norm:
            yield "norm", geometry.norm, losses.norm(points, side.mean_norm, side.norm_deviation)
        if geometry.repulsion:
            left, right = (
                points[draws.places(self._seed, f"repulsion-{which}", step, REPELLED, len(points))]
                for which in ("left", "right")
            )
            yield "repulsion", geometry.repulsion, losses.repulsion(left, right)

    @torch.no_grad()
    def figures(self, *, whole: bool) -> dict[str, Any]:
        """What the rows have of the structure now, beside chance and beside rows that no group names.

        `whole`: also the permutations that take more than a moment, of trained pairs and of devices.
        """
        chosen, side, seed, nulls = self.chosen, self._sides[0], self._seed, self._morphemes.nulls
        touched, base = side.rows.detach()[chosen.rows.to(side.rows.device)].cpu().double(), side.base.cpu().double()
        points = torch.cat([touched, base])
        words, start_words = chosen.vectors(points), chosen.vectors(torch.cat([side.start.double(), base]))
        untouched = side.rows.detach()[self._untouched.to(side.rows.device)].cpu().double()
        found: dict[str, Any] = {"side": side.name}
        if len(chosen.train):
            now, start = (measures.Directions.of(one, chosen) for one in (words, start_words))
            found["consistency"] = measures.consistency(now, start, chosen, seed=seed, nulls=nulls)
            if nulls and whole:
                found["trained_nulls"] = measures.trained_nulls(now, start, chosen, points, seed=seed, nulls=nulls)
            if nulls and whole and len(chosen.held):
                found["held_out_nulls"] = measures.held_out_nulls(words, chosen, seed=seed, nulls=nulls)
            found["analogy"] = measures.analogies(words, chosen, side.rows.detach().float())
        found["devices"] = device_classes(words, chosen, seed=seed, nulls=nulls if whole else 0)
        if found["devices"] and chosen.apart.any() and not chosen.apart.all():
            found["devices"]["held_out"] = held_out_devices(words, start_words, chosen, seed=seed, nulls=nulls)
        found["cosines"] = measures.cosines(side.rows.detach().float(), seed=seed)
        moved = (measures.moved(touched, side.start.double()), measures.moved(untouched, side.untouched_start.double()))
        found["moved"] = measures.difference(*moved, seed=seed, times=nulls)
        if found["moved"]["treated"]:
            found["verdict"] = verdict(found)
        return found


def dominated(told: dict[str, Any] | None) -> str:
    """What to say where the auxiliary part is most of what moves the rows that it acts on; else nothing."""
    if told is None or told["strength"] < 1:
        return ""
    for side, found in told.items():
        if isinstance(found, dict) and found["share"] > DOMINATES:
            terms = ", ".join(f"{name} {one['grad']:.3g}" for name, one in found.items() if isinstance(one, dict))
            text = f"{terms} against {found['text_grad']:.3g} of the text: {found['share']:.0%} of the gradient"
            return f"{text} on the {side} rows in groups is auxiliary; lower the weights"
    return ""


def untouched_like(touched: Tensor, counts: np.ndarray) -> Tensor:
    """For each touched row, another that no group names and that the text holds about as often. [t] → [u]

    counts [n_new]: occurrences in the training text. Both sides in the order of their counts, each row once.
    """
    rest = np.setdiff1d(np.arange(len(counts)), touched.numpy())
    rest = rest[np.argsort(counts[rest], kind="stable")]
    wanted = np.sort(counts[touched.numpy()])
    if not len(rest) or not len(wanted):
        return torch.from_numpy(rest)
    place = np.searchsorted(counts[rest], wanted)
    # two words of one frequency take neighbours: the nearest place that is not taken, walking up and back from the end
    place = np.maximum.accumulate(place - np.arange(len(place))) + np.arange(len(place))
    place = np.minimum(place, len(rest) - len(place) + np.arange(len(place))) if len(rest) >= len(place) else place
    return torch.from_numpy(rest[np.unique(place.clip(0, len(rest) - 1))])


@torch.no_grad()
def norms_of(base: Any, count: int) -> tuple[float, float]:
    """Mean and standard deviation of the norms of the first `count` published rows."""
    norms = torch.cat(
        [
            torch.linalg.vector_norm(base.block(start, min(start + 4096, count)).float(), dim=1).cpu()
            for start in range(0, count, 4096)
        ]
    ).double()
    return float(norms.mean()), float(norms.std())
