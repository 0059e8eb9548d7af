"""Words of devices: what triplets teach of those that they show, and of those that they do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wake2vec.structure import draws, losses
from wake2vec.structure.chosen import Chosen, choose, draw_triplets
from wake2vec.structure.devices import FOLDS, balanced_accuracy, device_classes, held_out_devices
from wake2vec.structure.verdict import verdict

FIRST, D, SEED = 500, 48, 42
NULLS = 60


def test_devices_are_told_apart_where_they_differ_and_not_on_noise():
    rng = np.random.default_rng(0)
    labels = torch.tensor([0] * 120 + [1] * 30 + [2] * 15)
    fold = torch.from_numpy((draws.uniform(1, "f", 0, len(labels)) * FOLDS).astype(np.int64))
    noise = torch.from_numpy(rng.normal(size=(len(labels), D)))
    centres = torch.from_numpy(rng.normal(size=(3, D)))

    assert abs(balanced_accuracy(noise, labels, fold, 3) - 1 / 3) < 0.15
    assert balanced_accuracy(noise + 2 * centres[labels], labels, fold, 3) > 0.95


def in_devices() -> Chosen:
    members = [(f"w{n}", str(n % 3)) for n in range(240)]
    ids = {word: [FIRST + n] for n, (word, _) in enumerate(members)}
    return choose([], members, ids, first_new_id=FIRST, seed=SEED, devices_held_out=0.25)


def test_triplets_teach_random_rows_the_words_that_they_show_and_no_other():
    one = in_devices()
    start = torch.from_numpy(np.random.default_rng(1).normal(size=(240, D)))
    rows = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([rows], lr=3e-2)
    for step in range(150):
        optimizer.zero_grad()
        drawn, words = draw_triplets(one, seed=SEED, step=step, count=256, balance=True), one.vectors(rows)
        losses.triplets(words[drawn.anchor], words[drawn.positive], words[drawn.negative], 0.2).backward()
        optimizer.step()
    now, before = one.vectors(rows.detach()), one.vectors(start)
    held = held_out_devices(now, before, one, seed=SEED, nulls=NULLS)

    assert device_classes(now, one, seed=SEED, nulls=0)["value"] > 0.7  # most of them are shown
    assert abs(held["value"] - 1 / 3) < 0.2
    assert held["p"] > 0.05
    assert "held-out device words do not gain" in verdict({"devices": {"held_out": held}})


def test_held_out_device_words_gain_where_their_devices_come_apart():
    one = in_devices()
    rng = np.random.default_rng(2)
    start = torch.from_numpy(rng.normal(size=(240, D)))
    now = start + 2 * torch.from_numpy(rng.normal(size=(3, D)))[one.device]
    held = held_out_devices(now, start, one, seed=SEED, nulls=NULLS)

    assert held["value"] > 0.95
    assert held["start"] < 0.6
    assert held["p"] == pytest.approx(1 / (NULLS + 1), abs=1e-6)
    assert "held-out device words gain" in verdict({"devices": {"held_out": held}})
