"""What the ranks of an attempt send one another: gradients once a step, the state once at its start."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from wake2vec.contract.errors import NoGpu, RankLost
from wake2vec.model.device import brief, is_out_of_memory
from wake2vec.model.layers.stage import Stage
from wake2vec.phases.base import Prepared
from wake2vec.train.optimizers import COUNT, Optimizer
from wake2vec.train.ranks.tree import Node, deal, spans, total

COLLECTIVE_SECONDS = 60.0  # one begins when every rank is ready for it, so a slow card is no reason to wait
STAGE_SECONDS = 300.0  # for hidden states: a slow card has some passes to make before it sends any
BUCKET_BYTES = 32 << 20
NCCL_REMEDY = "try NCCL_P2P_DISABLE=1, then NCCL_SHM_DISABLE=1"
GLOO_REMEDY = "set GLOO_SOCKET_IFNAME to a network interface of this machine, such as lo"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # of hidden states


def join(rendezvous: Path, rank: int, size: int, device: torch.device, *, layers: bool = False) -> None:
    """Find the other ranks, through a file: no port can be taken. Raises NoGpu where they cannot talk.

    Where `layers` are dealt out, what they say goes through the host: see Post.
    """
    device = torch.device("cpu") if layers else device
    on_card = device.type == "cuda"
    kind, limit = "nccl" if on_card else "gloo", timedelta(seconds=STAGE_SECONDS if layers else COLLECTIVE_SECONDS)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the host's name need not lead anywhere
    try:
        store = dist.FileStore(str(rendezvous), size)  # type: ignore[attr-defined]
        dist.init_process_group(
            kind, store=store, rank=rank, world_size=size, timeout=limit, device_id=device if on_card else None
        )
        ones = torch.ones(1, device=device)
        dist.all_reduce(ones)
        heard = int(ones)
    except RuntimeError as error:
        way, remedy = ("NCCL", NCCL_REMEDY) if on_card else ("gloo", GLOO_REMEDY)
        said = f"rank {rank} of {size} cannot talk to the others over {way}: {brief(error)}"
        raise NoGpu(f"{said}; {remedy}, or set train.cards = 1") from error
    if heard != size:
        raise NoGpu(f"{heard} of {size} ranks answer; set train.cards = 1")


@contextmanager
def talking() -> Iterator[None]:
    """Around what needs all ranks. Raises RankLost where one does not take part."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise RankLost(f"not every rank takes part: {brief(error)}") from error


def leave() -> None:
    """One that still has to be heard of is not waited for: NCCL's own farewell would."""
    if dist.is_initialized() and dist.get_backend() == "gloo":
        dist.destroy_process_group()


def state_of(prepared: Prepared, optimizer: Optimizer, stage: Stage | None = None) -> list[Tensor]:
    """All that a step changes or may rest on, or what of it one stage holds, in the same order on every rank."""
    tables = (prepared.tensors, optimizer.state_tensors())
    return [
        tensor
        for table in tables
        for name, tensor in sorted(table.items())
        if stage is None or stage.holds(name) or name == COUNT
    ]


@talking()
def take_over(tensors: Sequence[Tensor], device: torch.device) -> None:
    """Make the tensors of every rank those of rank 0."""
    for tensor in tensors:
        held = tensor.detach().to(device)
        dist.broadcast(held, src=0)
        with torch.no_grad():
            tensor.copy_(held)


@talking()
def carry(tensors: Sequence[Tensor], *, to: int | None = None, of: int | None = None) -> None:
    """Give the tensors to one other rank, or fill them with those of one, through the host."""
    for tensor in tensors:
        held = tensor.detach().cpu().contiguous()
        if to is not None:
            dist.send(held, to)
        else:
            dist.recv(held, of)
            with torch.no_grad():
                tensor.copy_(held)


class Post:
    """Hidden states to and from other ranks, through the host: any two cards of one can, and gloo says who is gone.

    What is sent is on its way while the sender goes on. None says that nothing comes of it: a rank gave up.
    """

    def __init__(self) -> None:
        self._under_way: list[tuple[Any, Tensor]] = []

    @talking()
    def send(self, x: Tensor | None, *, to: int, tag: int) -> None:
        about = torch.zeros(4, dtype=torch.int64)  # whether anything comes, its dtype, batch, length
        if x is not None:
            about += torch.tensor([1, DTYPES.index(x.dtype), x.shape[0], x.shape[1]])
        for part in [about] if x is None else [about, x.detach().cpu().contiguous()]:
            self._under_way.append((dist.isend(part, to, tag=tag), part))  # kept until they have left

    @talking()
    def receive(self, width: int, *, of: int, tag: int) -> Tensor | None:
        """[b, s, d] on the host, or None."""
        about = torch.zeros(4, dtype=torch.int64)
        dist.recv(about, of, tag=tag)
        there, dtype, batch, length = about.tolist()
        if not there:
            return None
        x = torch.empty(batch, length, width, dtype=DTYPES[dtype])
        dist.recv(x, of, tag=tag)
        return x

    @talking()
    def wait(self) -> None:
        """Until all has left."""
        for work, _ in self._under_way:
            work.wait()
        self._under_way.clear()


@talking()
def add_up(tensors: Sequence[Tensor]) -> None:
    """Make the tensors of every rank the sum over all of them."""
    for views in _buckets(tensors):
        flat = views[0] if len(views) == 1 else torch.cat(views)
        dist.all_reduce(flat)
        _put_back(flat, views)


@talking()
def add_up_in_order(nodes: Sequence[Node], batch: int) -> Sequence[Tensor]:
    """The sum over the samples of all ranks in the order of the tree, in the tensors of the first own node."""
    size = dist.get_world_size()
    theirs = [spans(deal(batch, rank, size)) for rank in range(size)]
    most = max(map(len, theirs))
    for parts in zip(*(_buckets(node.tensors) for node in nodes), strict=True):
        own = [torch.cat(views) for views in parts]
        sent = torch.stack(own + own[:1] * (most - len(own)))  # [most, entries]; what fills up is not read
        heard = [torch.empty_like(sent) for _ in range(size)]
        dist.all_gather(heard, sent)
        ordered = [
            Node(first=first, size=count, tensors=[flat])
            for flats, places in zip(heard, theirs, strict=True)
            for flat, (first, count) in zip(flats, places, strict=False)
        ]
        _put_back(total(ordered)[0], parts[0])
    return nodes[0].tensors


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Flat views of all entries in order, gathered into pieces of a size that is worth a message."""
    most, views, room = BUCKET_BYTES // 4, list[Tensor](), BUCKET_BYTES // 4
    for tensor in tensors:
        flat = tensor.view(-1)
        for view in (flat[start : start + most] for start in range(0, len(flat), most)):
            if view.numel() > room:
                yield views
                views, room = [], most
            views.append(view)
            room -= view.numel()
    if views:
        yield views


def _put_back(flat: Tensor, views: Sequence[Tensor]) -> None:
    if len(views) == 1 and views[0].data_ptr() == flat.data_ptr():
        return
    start = 0
    for view in views:
        view.copy_(flat[start : start + len(view)])
        start += len(view)
