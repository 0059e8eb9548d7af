"""Which cards are in sight, and which of them a job gets."""

import pytest

from runner.machine.cards import group, too_few, unequal, visible
from runner.machine.vram import CardUse

T4S = {0: "Tesla T4", 1: "Tesla T4"}
MIXED = {0: "Tesla T4", 1: "A100", 2: "A100"}


def card(index):
    return CardUse(index=index, name="Tesla T4", total_mib=15_360, used_mib=0, uuid=f"GPU-{index}abc")


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [(None, [0, 1, 2]), ("", []), ("-1", []), ("2,0", [2, 0]), ("GPU-1", [1]), ("1,7,0", [1]), ("1, 1", [1])],
)
def test_cards_are_in_sight_as_cuda_reads_its_variable(chosen, seen):
    assert [one.index for one in visible([card(0), card(1), card(2)], chosen)] == seen


@pytest.mark.parametrize(
    ("wanted", "here", "free", "gets"),
    [
        (1, MIXED, [1, 2], [1]),
        (2, T4S, [0, 1], [0, 1]),
        (2, T4S, [1], []),  # the other one is busy: it waits
        (2, {1: "Tesla T4"}, [1], [1]),  # the other one is gone
        (4, T4S, [0, 1], [0, 1]),
        ("auto", T4S, [1], [1]),
        ("auto", MIXED, [0, 1, 2], [1, 2]),
        ("auto", MIXED, [0], [0]),
        (2, MIXED, [0, 1, 2], [1, 2]),
        (2, {0: "cpu"}, [0], [0]),
    ],
)
def test_a_job_gets_equal_cards(wanted, here, free, gets):
    assert group(wanted, here, free) == gets


def test_cards_that_are_there_but_differ_are_told_with_what_to_do():
    said = unequal(3, MIXED)

    assert said.startswith("train.cards = 3, but the cards here differ: Tesla T4 (GPU 0), A100 (GPU 1), A100 (GPU 2)")
    assert "CUDA_VISIBLE_DEVICES" in said
    assert unequal(2, MIXED) == unequal("auto", MIXED) == unequal(4, MIXED) == unequal(3, T4S) == ""


def test_layers_are_dealt_to_two_cards_at_least_and_a_job_waits_for_the_second():
    assert group("auto", T4S, [1], least=2) == []
    assert group("auto", T4S, [0, 1], least=2) == group(4, T4S, [0, 1], least=2) == [0, 1]
    assert too_few(2, T4S, 2) == too_few(1, {0: "Tesla T4"}, 1) == ""
    assert too_few(2, {0: "Tesla T4"}, 1).startswith("waits for 2 equal cards, 1 here:")
    assert too_few(2, {0: "Tesla T4", 1: "A100"}, 2).startswith("waits for 2 equal cards, 2 here (Tesla T4, A100):")
    assert too_few(2, T4S, 1).startswith("waits for 2 equal cards, 2 here, 1 in a host:")
