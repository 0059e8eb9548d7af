"""A sum in an order of its own: a binary tree over the samples of a step, whatever ranks they were dealt to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(kw_only=True)
class Node:
    """The sum over `size` neighbouring samples: a power of two, at a multiple of itself. It owns its tensors."""

    first: int
    size: int
    tensors: Sequence[Tensor]


def deal(batch: int, rank: int, size: int) -> range:
    """The places in the step whose samples a rank gets: neighbours, as evenly as it goes."""
    return range(rank * batch // size, (rank + 1) * batch // size)


def add(nodes: list[Node], new: Node) -> None:
    """Put a node behind its left neighbours and join whatever are siblings: logarithmically few are left."""
    nodes.append(new)
    while len(nodes) > 1 and _are_siblings(*nodes[-2:]):
        _join(nodes)


def total(nodes: Iterable[Node]) -> Sequence[Tensor]:
    """The sum over the whole step, from the nodes of all ranks in the order of their samples."""
    joined: list[Node] = []
    for node in nodes:
        add(joined, node)
    while len(joined) > 1:
        _join(joined)
    return joined[0].tensors


def spans(samples: range) -> list[tuple[int, int]]:
    """First sample and size of the nodes that a rank with these samples ends with."""
    nodes: list[Node] = []
    for sample in samples:
        add(nodes, Node(first=sample, size=1, tensors=()))
    return [(node.first, node.size) for node in nodes]


def _are_siblings(left: Node, right: Node) -> bool:
    return left.size == right.size and left.first % (2 * left.size) == 0


def _join(nodes: list[Node]) -> None:
    right, left = nodes.pop(), nodes.pop()
    for into, other in zip(left.tensors, right.tensors, strict=True):
        into.add_(other)
    nodes.append(Node(first=left.first, size=left.size + right.size, tensors=left.tensors))
