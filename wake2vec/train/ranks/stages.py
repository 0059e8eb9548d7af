"""Ranks that hold some layers of a model each, as rank 0 sees them: samples go through all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from wake2vec.contract.errors import RankLost
from wake2vec.contract.order import Order
from wake2vec.contract.rundir import RunDir
from wake2vec.model.device import this_device
from wake2vec.model.layers.stage import Passage, Stage
from wake2vec.phases.base import Prepared
from wake2vec.train.optimizers import Optimizer
from wake2vec.train.ranks import group
from wake2vec.train.ranks.team import Bring, Command, Digest, Measure, Pass, Ranks, TakeOver

T = TypeVar("T")


class Stages(Ranks):
    """Rank 0 measures and decides as one card would; its model asks the others for what it does not hold."""

    def __init__(
        self,
        run: RunDir,
        order: Order,
        layers: tuple[int, ...],
        *,
        beat: Callable[[], None],
        lost: Callable[[RankLost], None],
    ) -> None:
        super().__init__(run, order, len(layers), beat=beat, lost=lost, layers=layers)
        self.size = 1
        self.regime |= {"spread": "layers"}
        self.stage = Stage(rank=0, dealt=layers, beyond=self._beyond, largest=lambda: self._largest)
        self._others = {rank: Stage(rank=rank, dealt=layers) for rank in range(1, len(layers))}
        self._largest: list[float] = []
        self._post = group.Post()
        self._has_joined = False

    def do(self, command: Command, own: Callable[[], T]) -> list[T]:
        # what is measured asks the others by itself, and no two hold the same
        return [own()] if isinstance(command, Measure | Digest) else super().do(command, own)

    def give(self, prepared: Prepared, optimizer: Optimizer) -> None:
        def own() -> None:
            for rank, stage in self._others.items():
                group.carry(group.state_of(prepared, optimizer, stage), to=rank)

        self.do(TakeOver(), own)

    def gather(self, prepared: Prepared, optimizer: Optimizer) -> None:
        def own() -> None:
            for rank, stage in self._others.items():
                group.carry(group.state_of(prepared, optimizer, stage), of=rank)

        self.do(Bring(), own)

    def _beyond(self, hidden: Tensor, passage: Passage) -> Tensor:
        """Through the layers of all others. [b, s, d] -> [b, s, d]"""
        if not self._has_joined:  # the model is asked as soon as it is loaded
            self.join(this_device())
            self._has_joined = True

        def own() -> Tensor | None:
            self._post.send(hidden, to=1, tag=0)
            found = self._post.receive(hidden.shape[-1], of=self.count - 1, tag=0)
            self._post.wait()
            return found

        came, *largest = self.do(Pass(passage=passage), own)
        assert isinstance(came, Tensor), "a rank from which nothing came says why"
        self._largest = [size for sizes in largest for size in sizes]  # type: ignore[union-attr]
        return came.to(hidden.device)
