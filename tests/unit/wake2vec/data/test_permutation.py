"""The order of blocks is a pure function of seed and position."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wake2vec.data.permutation import block_at, blocks_of_step

SIZES = st.integers(1, 300)
SEEDS = st.integers(0, 2**64)


@given(n_blocks=SIZES, seed=SEEDS, epoch=st.integers(0, 50))
def test_every_epoch_visits_every_block_once(n_blocks: int, seed: int, epoch: int) -> None:
    visited = [block_at(epoch * n_blocks + place, n_blocks, seed) for place in range(n_blocks)]

    assert sorted(visited) == list(range(n_blocks))


@given(n_blocks=SIZES, seed=SEEDS, batch=st.integers(1, 40), steps=st.integers(1, 12))
def test_steps_join_into_one_sequence_whatever_the_batch(n_blocks: int, seed: int, batch: int, steps: int) -> None:
    joined = np.concatenate([blocks_of_step(step, batch, n_blocks, seed) for step in range(steps)])

    assert joined.tolist() == [block_at(position, n_blocks, seed) for position in range(steps * batch)]


@given(n_blocks=SIZES, seed=SEEDS, batch=st.integers(1, 40), steps=st.integers(0, 12))
def test_no_block_is_visited_twice_more_often_than_another(n_blocks: int, seed: int, batch: int, steps: int) -> None:
    visits = np.zeros(n_blocks, dtype=int)
    for step in range(steps):
        np.add.at(visits, blocks_of_step(step, batch, n_blocks, seed), 1)

    assert visits.max() - visits.min() <= 1


def test_the_order_stays_the_same_for_good() -> None:
    # recorded once: another order would break every job that was begun with this one
    assert blocks_of_step(3, 16, 50, 42).tolist() == [23, 39, 0, 46, 39, 24, 45, 41, 43, 7, 15, 44, 17, 1, 40, 5]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = blocks_of_step(0, 100, 100, 1), blocks_of_step(1, 100, 100, 1)
    other_seed = blocks_of_step(0, 100, 100, 2)

    assert (first != second).mean() > 0.8
    assert (first != other_seed).mean() > 0.8
