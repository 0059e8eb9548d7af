"""Pairs that train and pairs that do not: by text, apart by row, and the same whatever else is in the file."""

from __future__ import annotations

import numpy as np
import torch

from wake2vec.contract.words.groups import Pair
from wake2vec.structure.chosen import Chosen, choose, draw_triplets, shuffled

FIRST = 1000


def pairs(count: int, group: str = "-x") -> list[Pair]:
    return [Pair(group=group, word=f"{group}w{n}", base=f"b{n}") for n in range(count)]


def ids_of(found: list[Pair], members: list[tuple[str, str]] = ()) -> dict[str, list[int]]:
    words = dict.fromkeys([*(pair.word for pair in found), *(word for word, _ in members)])
    bases = dict.fromkeys(pair.base for pair in found)
    table = {base: [number] for number, base in enumerate(bases)}
    return table | {word: [FIRST + number] for number, word in enumerate(words)}


def chosen(found: list[Pair], members: list[tuple[str, str]] = (), **asked) -> Chosen:
    return choose(found, members, ids_of(found, members), first_new_id=FIRST, seed=42, **asked)


def held_words(one: Chosen) -> set[str]:
    return {one.words[place] for place in one.held.word.tolist()}


def test_about_a_fifth_is_held_out_and_more_pairs_move_none():
    few, many = chosen(pairs(200)), chosen(pairs(400))

    assert 0.1 < len(few.held) / 200 < 0.3
    assert len(few.train) + len(few.held) == 200
    assert held_words(few) == {word for word in held_words(many) if int(word[3:]) < 200}


def test_no_row_of_a_held_out_pair_is_trained_by_another_pair():
    found = pairs(50)
    derived = [Pair(group="-y", word=f"twice{n}", base=f"-xw{n}") for n in range(50)]
    both = found + derived
    table = ids_of(found) | {pair.word: [FIRST + 100 + n] for n, pair in enumerate(derived)}

    one = choose(both, [], table, first_new_id=FIRST, seed=42)

    def rows(part):
        return {one.words[place] for place in [*part.word.tolist(), *part.base.tolist()]} & {
            word for word, ids in table.items() if ids[0] >= FIRST
        }

    assert rows(one.train).isdisjoint(rows(one.held))
    assert one.left_out["they share a row with a pair that is held out"] > 0


def test_a_group_that_is_too_small_to_train_is_left_out_and_counted():
    one = chosen(pairs(30) + pairs(3, "-z"))

    assert one.groups == ("-x",)
    assert any("fewer than 5" in reason for reason in one.left_out)


def test_a_base_in_pieces_is_left_out_or_is_the_mean_of_its_pieces():
    found = pairs(12)
    table = ids_of(found) | {"b3": [500, 501]}
    whole = choose(found, [], table, first_new_id=FIRST, seed=42)
    any_pair = choose(found, [], table, first_new_id=FIRST, seed=42, whole=False)
    points = torch.arange(float(len(any_pair.rows) + len(any_pair.base_ids))).unsqueeze(1)

    assert "b3" not in whole.words
    order = [*(any_pair.rows + FIRST).tolist(), *any_pair.base_ids.tolist()]
    expected = (order.index(500) + order.index(501)) / 2
    assert any_pair.vectors(points)[any_pair.words.index("b3")].item() == expected


def test_weights_count_pairs_or_groups_alike():
    one = chosen(pairs(40) + [Pair(group="-y", word=f"y{n}", base=f"c{n}") for n in range(10)], held_out=0.0)
    of = {kind: one.weights(kind)[one.labels.group == 1].sum().item() for kind in ("pair", "sqrt", "group")}

    np.testing.assert_allclose([of["pair"], of["group"]], [0.2, 0.5], rtol=1e-5)
    assert of["pair"] < of["sqrt"] < of["group"]


def test_shuffling_keeps_the_sizes_of_groups_and_changes_who_is_in_them():
    one = chosen(pairs(40) + [Pair(group="-y", word=f"y{n}", base=f"c{n}") for n in range(40)], shuffle=True)

    assert torch.bincount(one.labels.group).tolist() == torch.bincount(one.train.group).tolist()
    assert not torch.equal(one.labels.group, one.train.group)
    assert torch.equal(one.labels.group, shuffled(one.train, 42).group)


def test_triplets_follow_from_the_step_and_a_positive_is_never_its_anchor():
    members = [(f"n{n}", "nonce") for n in range(60)] + [(f"p{n}", "pun") for n in range(6)] + [("f", "faust")]
    one = chosen(pairs(20), members)
    device = dict(zip(one.members.tolist(), one.device.tolist(), strict=True))

    def drawn(step, balance=True):
        return draw_triplets(one, seed=42, step=step, count=2000, balance=balance)

    first, again, other = drawn(3), drawn(3), drawn(4)

    assert torch.equal(first.anchor, again.anchor)
    assert not torch.equal(first.anchor, other.anchor)
    assert not (first.anchor == first.positive).any()
    for a, p, n in zip(first.anchor.tolist(), first.positive.tolist(), first.negative.tolist(), strict=True):
        assert device[a] == device[p] != device[n]
    pun = one.devices.index("pun")
    share = [np.mean([device[a] == pun for a in drawn(0, balance).anchor.tolist()]) for balance in (True, False)]
    assert abs(share[0] - 0.5) < 0.05
    assert abs(share[1] - 6 / 66) < 0.05


def test_no_triplet_shows_a_word_that_is_held_out_and_more_words_hold_out_the_same():
    some = [(f"n{n}", "nonce") for n in range(40)] + [(f"p{n}", "pun") for n in range(40)]
    one = choose([], some, {word: [FIRST + n] for n, (word, _) in enumerate(some)}, first_new_id=FIRST, seed=3,
                 devices_held_out=0.25)  # fmt: skip
    apart = {one.words[place] for place in one.members[one.apart].tolist()}
    drawn = draw_triplets(one, seed=3, step=0, count=4000, balance=True)
    shown = {one.words[place] for part in vars(drawn).values() for place in part.tolist()}

    assert 8 <= len(apart) <= 32
    assert shown == {word for word, _ in some} - apart
    more = [(f"q{n}", "pun") for n in range(9)] + some
    other = choose([], more, {word: [FIRST + n] for n, (word, _) in enumerate(more)}, first_new_id=FIRST, seed=3,
                   devices_held_out=0.25)  # fmt: skip
    assert apart <= {other.words[place] for place in other.members[other.apart].tolist()}


def test_one_device_alone_gives_no_triplets():
    one = chosen(pairs(20), [("a", "pun"), ("b", "pun")])

    assert len(draw_triplets(one, seed=1, step=0, count=8, balance=True).anchor) == 0
