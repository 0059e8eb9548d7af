"""Figures on rows whose structure is known: none, planted, planted and shuffled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from wake2vec.contract.words.groups import Pair
from wake2vec.structure import losses, measures
from wake2vec.structure.chosen import Chosen, choose
from wake2vec.structure.products import Cells, Inner
from wake2vec.structure.verdict import verdict

FIRST, D, GROUPS, EACH, SEED = 500, 48, 6, 30, 42
NULLS = 60


def chosen(shuffle: bool = False) -> Chosen:
    pairs = [Pair(group=f"-{g}", word=f"w{g}.{n}", base=f"b{g}.{n}") for g in range(GROUPS) for n in range(EACH)]
    ids = {pair.base: [number] for number, pair in enumerate(pairs)}
    ids |= {pair.word: [FIRST + number] for number, pair in enumerate(pairs)}
    return choose(pairs, [], ids, first_new_id=FIRST, seed=SEED, shuffle=shuffle)


def random_points(seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(2 * GROUPS * EACH, D)))


def trained(one: Chosen, loss: Any = losses.cosine, steps: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows before and after a loss alone has trained them, with noise as a text gives it."""
    points = random_points(3)
    count = len(one.rows)
    rows = torch.nn.Parameter(points[:count].float())
    base, start = points[count:].float(), points.clone()
    optimizer = torch.optim.AdamW([rows], lr=2e-2)
    noise = torch.Generator().manual_seed(0)
    member, weights = one.labels.member(len(one.groups), base), one.weights("sqrt")
    for _ in range(steps):
        optimizer.zero_grad()
        words = one.vectors(torch.cat([rows, base]))
        pair = (words[one.labels.word], words[one.labels.base])
        of = pair if loss is losses.contrast else (pair[0] - pair[1],)
        loss(*of, member, weights).backward()
        rows.grad += 1e-4 * torch.randn(rows.shape, generator=noise)
        optimizer.step()
    return start, torch.cat([rows.detach().double(), points[count:]])


def figures(one: Chosen, start: torch.Tensor, now: torch.Tensor) -> dict:
    words, before = one.vectors(now), one.vectors(start)
    here, there = measures.Directions.of(words, one), measures.Directions.of(before, one)
    found = {"consistency": measures.consistency(here, there, one, seed=SEED, nulls=NULLS)}
    found["trained_nulls"] = measures.trained_nulls(here, there, one, now, seed=SEED, nulls=NULLS)
    return found


def test_random_rows_score_nothing_whatever_the_size_of_a_group():
    one = chosen()
    values = []
    for seed in range(20):
        words = one.vectors(random_points(seed))
        values.append(measures.leave_one_out(one.train.offsets(words), one.train.group, GROUPS).mean().item())

    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))


def test_inner_products_alone_say_what_the_offsets_say():
    words = [f"w{n}" for n in range(40)]
    pairs = [Pair(group=str(n % 5), word=words[n], base=words[20 + n]) for n in range(20)]
    ids = {word: [FIRST + n, *([FIRST + 40 + n] if n % 3 == 0 else [])] for n, word in enumerate(words)}
    one = choose(pairs, [], ids, first_new_id=FIRST, seed=1, held_out=0.0, min_pairs=2, whole=False)
    points = random_points(2)[: len(one.rows)]
    train = measures.Directions.of(one.vectors(points), one).train
    direct = measures.leave_one_out(train, one.train.group, len(one.groups))
    cells, inner = Cells.of(one.train.group), Inner.of(points, one, one.train)

    assert one.points.shape[1] == 2
    torch.testing.assert_close(cells.leave_one_out(inner.products(inner.places, inner.shares, cells)), direct)
    torch.testing.assert_close(cells.leave_one_out((train @ train.T)[cells.left, cells.right]), direct)


@pytest.mark.parametrize("loss", [losses.cosine, losses.offset, losses.contrast], ids=lambda one: one.__name__)
def test_training_random_rows_lifts_the_trained_pairs_alone_and_the_verdict_says_so(loss):
    one = chosen()
    found = figures(one, *trained(one, loss))

    assert found["consistency"]["trained_gain"] > 0.2
    assert_nothing_held_out_moved(found)
    assert "on trained pairs alone" in verdict(found)


def test_groups_dealt_out_by_the_seed_lift_their_own_labels_alone():
    one = chosen(shuffle=True)
    found = figures(one, *trained(one))

    assert found["consistency"]["as_labelled"] > 0.2
    assert_nothing_held_out_moved(found)


def assert_nothing_held_out_moved(found: dict) -> None:
    held = found["consistency"]["held_out_gain_null"]
    assert abs(held["value"] - held["null"]) < 3 * held["null_sd"]
    assert held["p"] > 0.05


def planted(one: Chosen) -> torch.Tensor:
    """Words that lie where their base and the group's offset say."""
    points = random_points(5)
    direction = torch.from_numpy(np.random.default_rng(7).normal(size=(GROUPS, D)))
    for part in (one.train, one.held):
        rows, bases = one.points[part.word, 0], one.points[part.base, 0]
        points[rows] = points[bases] + 4 * direction[part.group] + 0.3 * points[rows]
    return points


def test_a_planted_offset_is_found_on_held_out_pairs_and_not_under_other_labels():
    one = chosen()
    now = planted(one)
    found = figures(one, random_points(5), now)
    analogy = measures.analogies(one.vectors(now), one, now[: len(one.rows)].float())

    assert found["consistency"]["held_out"] > 0.8
    assert found["consistency"]["held_out_gain_null"]["p"] == pytest.approx(1 / (NULLS + 1), abs=1e-6)
    assert found["trained_nulls"]["labels"]["p"] == pytest.approx(1 / (NULLS + 1), abs=1e-6)
    assert analogy["acc1"] > 0.9 > analogy["nearest_acc1"]
    assert "held-out pairs gain" in verdict(found)
    other = chosen(shuffle=True)
    assert figures(other, random_points(5), now)["consistency"]["as_labelled"] < 0.1


def test_held_out_words_belong_to_their_own_bases_where_an_offset_is_planted_and_not_at_random():
    one = chosen()
    found, by_chance = (
        measures.held_out_nulls(one.vectors(points), one, seed=SEED, nulls=NULLS)
        for points in (planted(one), random_points(5))
    )

    for null in ("bases", "rows"):
        assert found[null]["p"] == pytest.approx(1 / (NULLS + 1), abs=1e-6)
        assert by_chance[null]["p"] > 0.05
        assert abs(by_chance[null]["value"] - by_chance[null]["null"]) < 3 * by_chance[null]["null_sd"]
    level = figures(one, random_points(5), planted(one))["consistency"]["held_out"]
    assert found["bases"]["value"] == found["rows"]["value"] == pytest.approx(level, abs=1e-6)


def test_a_cloud_that_moves_as_one_is_no_structure():
    one = chosen()
    now = random_points(5)
    now[: len(one.rows)] += 3
    found = figures(one, random_points(5), now)["consistency"]

    assert found["trained_raw"] > 0.5
    assert abs(found["trained"]) < 0.1  # not 0: offsets without their mean sum to nothing


def test_a_rank_leaves_out_the_base_and_counts_from_one():
    rows = torch.eye(4)
    asked = torch.tensor([[0.0, 1.0, 0.9, 0.0]])

    assert measures.rank(asked, rows, torch.tensor([2]), torch.tensor([-1])).tolist() == [2]
    assert measures.rank(asked, rows, torch.tensor([2]), torch.tensor([1])).tolist() == [1]


def test_p_is_never_zero_and_one_where_nothing_is_worse():
    assert measures.p_value(5.0, np.zeros(99)) == 0.01
    assert measures.p_value(-1.0, np.zeros(99)) == 1.0


def test_rows_that_moved_more_stand_apart_with_an_interval():
    found = measures.difference(torch.full((40,), 0.3), torch.full((40,), 0.1), seed=1, times=50)

    assert found["interval"] == pytest.approx([0.2, 0.2])


def test_permutations_run_on_one_thread_and_leave_the_others_to_what_follows() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(measures.each_of(range(2), lambda _: torch.get_num_threads())) == [1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
