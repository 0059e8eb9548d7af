"""How far the words of one literary device are told apart from those of others, shown by the losses or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wake2vec.structure import draws
from wake2vec.structure.chosen import Chosen
from wake2vec.structure.measures import beside_null, each_of, mean_of, p_value

FOLDS = 5


def balanced_accuracy(vectors: Tensor, labels: Tensor, fold: Tensor, classes: int) -> float:
    """Mean recall of the nearest centroid, each word judged by centroids of the other folds. vectors [m, d]

    In sample, centroids tell pure noise apart in 60 % of cases; so they score 1 / classes.
    """
    unit = F.normalize(vectors - vectors.mean(dim=0), dim=1).float()  # a permutation passes through it twice
    cell = labels * FOLDS + fold
    sums = torch.zeros(classes * FOLDS, unit.shape[1], dtype=unit.dtype).index_add_(0, cell, unit)
    sums = sums.view(classes, FOLDS, -1)
    others = F.normalize(sums.sum(dim=1, keepdim=True) - sums, dim=2)  # [c, folds, d]
    near = (unit @ others.flatten(0, 1).T).view(-1, classes, FOLDS)
    nearest = near[torch.arange(len(unit)), :, fold].argmax(dim=1)
    right = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, (nearest == labels).double())
    return mean_of(right / torch.bincount(labels, minlength=classes).clamp_min(1))


def nearest_to_shown(words: Tensor, chosen: Chosen) -> Tensor:
    """The device whose shown words lie nearest, for each word that no triplet shows. [h]"""
    vectors = words[chosen.members]
    unit = F.normalize(vectors - vectors[~chosen.apart].mean(dim=0), dim=1)
    sums = torch.zeros(len(chosen.devices), unit.shape[1], dtype=unit.dtype)
    sums.index_add_(0, chosen.device[~chosen.apart], unit[~chosen.apart])
    return (unit[chosen.apart] @ F.normalize(sums, dim=1).T).argmax(dim=1)


def held_out_devices(
    words: Tensor, start_words: Tensor, chosen: Chosen, *, seed: int, nulls: int
) -> dict[str, float | int]:
    """Balanced accuracy of words that no triplet shows, now and at the start; p of the gain, labels permuted."""
    labels, classes = chosen.device[chosen.apart], len(chosen.devices)
    now, start = (nearest_to_shown(one, chosen) for one in (words, start_words))

    def value(found: Tensor, of: Tensor) -> float:
        right = torch.zeros(classes, dtype=torch.float64).index_add_(0, of, (found == of).double())
        count = torch.bincount(of, minlength=classes)
        return mean_of((right / count)[count > 0])

    told: dict[str, float | int] = {"value": round(value(now, labels), 6), "start": round(value(start, labels), 6)}
    if nulls:
        orders = [torch.from_numpy(draws.permutation(seed, "null-apart", k, len(labels))) for k in range(nulls)]
        gains = each_of(orders, lambda order: value(now, labels[order]) - value(start, labels[order]))
        told["p"] = round(p_value(value(now, labels) - value(start, labels), gains), 6)
    return told | {"words": len(labels)}


def device_classes(words: Tensor, chosen: Chosen, *, seed: int, nulls: int) -> dict[str, Any]:
    """Of all device words, shown or not: how far their devices are told apart, each word judged by the others."""
    vectors, labels, classes = words[chosen.members], chosen.device, len(chosen.devices)
    if classes < 2:
        return {}
    texts = [chosen.words[place] for place in chosen.members.tolist()]
    fold = torch.from_numpy((draws.of_text(seed, "fold", texts) * FOLDS).astype(np.int64))
    found = balanced_accuracy(vectors, labels, fold, classes)
    if not nulls:
        return {"value": round(found, 6), "chance": round(1 / classes, 6)}
    orders = [torch.from_numpy(draws.permutation(seed, "null-device", k, len(labels))) for k in range(nulls)]
    null = each_of(orders, lambda order: balanced_accuracy(vectors, labels[order], fold, classes))
    return beside_null(found, null) | {"chance": round(1 / classes, 6), "words": len(labels)}
