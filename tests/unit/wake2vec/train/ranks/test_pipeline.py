"""Who does what when, where micro-batches follow one another through the layers of several cards."""

from __future__ import annotations

import itertools

import pytest

from wake2vec.train.ranks.pipeline import Act, heard, programme, told


def played(ranks: int, parts: int, *, overlapped: bool = True) -> tuple[int, list[int]]:
    """Run the programmes of all ranks, each act of one length: when the last ends, and most parts under way in each."""
    ahead = [programme(rank, ranks, parts, overlapped=overlapped) for rank in range(ranks)]
    sent: dict[tuple[int, int, bool, int], int] = {}  # from, to, whether it goes back, part: when it is there
    clock, under_way, most = [0] * ranks, [0] * ranks, [0] * ranks
    while any(ahead):
        before = sum(map(len, ahead))
        for rank in range(ranks):
            while ahead[rank]:
                act, part = ahead[rank][0]
                of, to = heard(act, rank, ranks), told(act, rank, ranks)
                key = (of if of is not None else -1, rank, act is Act.BACKWARD, part)
                if of is not None and key not in sent:
                    break
                ahead[rank].pop(0)
                clock[rank] = max(clock[rank], sent.get(key, 0)) + (act is not Act.LOSS)
                under_way[rank] += {Act.FORWARD: 1, Act.LOSS: 0, Act.BACKWARD: -1}[act]
                most[rank] = max(most[rank], under_way[rank])
                if to is not None:
                    sent[rank, to, act is not Act.FORWARD, part] = clock[rank]
        assert sum(map(len, ahead)) < before, "all wait for one another"
    assert under_way == [0] * ranks
    return max(clock), most


@pytest.mark.parametrize(("ranks", "parts"), [*itertools.product((2, 3, 4, 8), (1, 2, 3, 5, 16))])
def test_no_rank_waits_for_ever_and_few_parts_are_under_way(ranks: int, parts: int) -> None:
    took, most = played(ranks, parts)

    assert most == [min(parts, ranks + 1 - rank) for rank in range(ranks)]
    least = 2 * (parts + ranks - 1)  # one forward and one backward each, and the way there
    assert took == least if ranks <= 4 else took < 1.25 * least


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_in_a_fixed_order_one_part_at_a_time_goes_through_all_cards(ranks: int) -> None:
    took, most = played(ranks, 5, overlapped=False)

    assert most == [1] * ranks
    assert took == 2 * 5 * ranks


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_gradients_add_up_in_the_order_of_the_parts(rank: int) -> None:
    found = programme(rank, 3, 6)

    assert [part for act, part in found if act is Act.BACKWARD] == list(range(6))
    assert [part for act, part in found if act is Act.LOSS] == (list(range(6)) if rank == 0 else [])
