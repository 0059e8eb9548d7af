"""The sum over samples that does not depend on which rank has them."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wake2vec.train.ranks.tree import Node, add, deal, spans, total


def nodes_of(values: torch.Tensor, samples: range) -> list[Node]:
    nodes: list[Node] = []
    for sample in samples:
        add(nodes, Node(first=sample, size=1, tensors=[values[sample].clone()]))
    return nodes


@given(batch=st.integers(1, 33), size=st.integers(1, 8))
def test_every_sample_is_dealt_to_one_rank_and_shares_differ_by_at_most_one(batch: int, size: int) -> None:
    shares = [deal(batch, rank, size) for rank in range(size)]

    assert [sample for share in shares for sample in share] == list(range(batch))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@settings(max_examples=60)
@given(batch=st.integers(1, 20), size=st.integers(1, 6), seed=st.integers(0, 99))
def test_the_sum_has_the_same_bits_on_any_number_of_ranks(batch: int, size: int, seed: int) -> None:
    values = torch.randn(batch, 50, generator=torch.Generator().manual_seed(seed))
    alone = total(nodes_of(values, range(batch)))[0]
    parts = [nodes_of(values, deal(batch, rank, size)) for rank in range(size)]

    assert torch.equal(total(node for part in parts for node in part)[0], alone)
    assert torch.allclose(alone, values.sum(0), atol=1e-5)


@given(batch=st.integers(1, 40), size=st.integers(1, 5))
def test_what_a_rank_ends_with_is_known_to_the_others(batch: int, size: int) -> None:
    values = torch.zeros(batch, 1)
    for rank in range(size):
        samples = deal(batch, rank, size)
        assert spans(samples) == [(node.first, node.size) for node in nodes_of(values, samples)]


def test_few_sums_are_kept_while_samples_come_one_by_one() -> None:
    nodes: list[Node] = []
    most = 0
    for sample in range(256):
        add(nodes, Node(first=sample, size=1, tensors=[torch.ones(1)]))
        most = max(most, len(nodes))

    assert most == 8
    assert float(total(nodes)[0]) == 256
