"""What training has met is known after a cut as well."""

from __future__ import annotations

import numpy as np
import pytest

from wake2vec.data.blocks import Blocks
from wake2vec.data.permutation import blocks_of_step
from wake2vec.data.seen_words import SeenWords

FIRST, NEW, BATCH, SEED = 10, 90, 2, 5


@pytest.fixture
def blocks() -> Blocks:
    return Blocks(np.random.default_rng(0).integers(0, FIRST + NEW, 500), 8, place="text")


def met(blocks: Blocks) -> SeenWords:
    return SeenWords(blocks, batch=BATCH, seed=SEED, first_new_id=FIRST, n_new=NEW)


def by_hand(blocks: Blocks, step: int) -> list[bool]:
    ids = {
        int(id_)
        for number in range(step + 1)
        for part in blocks.batch(blocks_of_step(number, BATCH, len(blocks), SEED))
        for id_ in part.ravel()
    }
    return [FIRST + row in ids for row in range(NEW)]


def test_words_count_as_met_from_the_step_that_holds_them(blocks: Blocks) -> None:
    memory = met(blocks)

    for step in range(40):
        assert memory.up_to(step).tolist() == by_hand(blocks, step)


def test_a_resumed_job_has_met_the_same_words(blocks: Blocks) -> None:
    assert met(blocks).up_to(17).tolist() == by_hand(blocks, 17)


def test_a_step_that_is_taken_again_has_met_no_more(blocks: Blocks) -> None:
    memory = met(blocks)
    memory.up_to(20)

    assert memory.up_to(20).tolist() == by_hand(blocks, 20)
    assert memory.up_to(3).tolist() == by_hand(blocks, 3)
