"""What it would save to split the optimizer's state over two ranks by rows, instead of holding all of it on each.

`python -m bench.speed.scale --only state`. Both ways add up the gradient and update the rows: replicated is an
all-reduce and the whole update on each rank; split is a reduce-scatter, the update of half of the rows, and an
all-gather of what they became, which are the same bytes. Two processes over gloo.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from wake2vec.train.optimizers import Optimizer, make_optimizer

RANKS = 2
SIZES = {"adafactor": (1382, 5120), "adamw": (724, 5120)}  # a 32nd of 44,223 rows; an eighth of LoRA's 116 MiB
ROUNDS = 7


def measured(folder: Path) -> list[dict[str, Any]]:
    """A row for each optimizer: seconds of either way, and the state that a rank holds."""
    found = []
    for kind, (rows, width) in SIZES.items():
        out = folder / f"{kind}.pt"
        start_processes(  # type: ignore[no-untyped-call]
            _rank, args=(kind, rows, width, folder / f"{kind}.meet", out), nprocs=RANKS, start_method="spawn"
        )
        found.append({"optimizer": kind, "rows": rows, "width": width, "ranks": RANKS, **torch.load(out)})
    return found


def _rank(rank: int, kind: Any, rows: int, width: int, meet: Path, out: Path) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = dist.FileStore(str(meet), RANKS)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    figures = dict(ways(kind, rows, width, rank))
    if rank == 0:
        torch.save(figures, out)
    dist.destroy_process_group()


def ways(kind: Any, rows: int, width: int, rank: int) -> Iterator[tuple[str, float]]:
    """Seconds of adding up and of updating, and MiB of state, each replicated and split."""
    gradient = torch.empty(rows, width).normal_(generator=torch.Generator().manual_seed(rank))
    whole, part = nn.Parameter(torch.zeros(rows, width)), nn.Parameter(torch.zeros(rows // RANKS, width))
    yield from _way("replicated", kind, whole, lambda into: _all(gradient, into))
    yield from _way("split", kind, part, lambda into: _halves(gradient, into, whole.detach()))


def _way(
    name: str, kind: Any, parameter: nn.Parameter, add_up: Callable[[Tensor], None]
) -> Iterator[tuple[str, float]]:
    parameter.grad = into = torch.zeros_like(parameter)
    optimizer: Optimizer = make_optimizer(kind, {"rows": parameter}, weight_decay=0.0)
    yield f"{name}_sum_s", _fastest(lambda: add_up(into))
    yield f"{name}_update_s", _fastest(lambda: optimizer.step(1e-4, gradient_factor=1.0))
    yield f"{name}_state_mib", sum(one.nbytes for one in optimizer.state_tensors().values()) / 2**20


def _all(gradient: Tensor, into: Tensor) -> None:
    into.copy_(gradient)
    dist.all_reduce(into)


def _halves(gradient: Tensor, into: Tensor, rows: Tensor) -> None:
    """The sum of half of the rows; the other half of what they became; and what clipping and factors want of all."""
    dist.reduce_scatter_single(into, gradient)
    dist.all_gather_single(rows, into)
    dist.all_reduce(torch.zeros(rows.shape[1] + 2))  # the mean of each column, and two norms


def _fastest(action: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        dist.barrier()
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def held(one: dict[str, Any], way: str) -> dict[str, str]:
    """A row as it stands on the page."""
    return {
        "optimizer": one["optimizer"],
        "rows": f"{one['rows']:,} x {one['width']:,}",
        "state": way,
        "adding up, ms": f"{1000 * one[f'{way}_sum_s']:.0f}",
        "update, ms": f"{1000 * one[f'{way}_update_s']:.0f}",
        "state of a rank, MiB": f"{one[f'{way}_state_mib']:.1f}",
    }
