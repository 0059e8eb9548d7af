"""A step through layers that lie on several cards: several micro-batches under way, one behind the other.

They go from card to card and back to the first, which has the loss; gradients take the same way the other way round.
Every card makes its backward passes in the order of the micro-batches, so what trains adds up as on one card.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any

from torch import Tensor

from wake2vec.contract.failpoints import failpoint
from wake2vec.model.device import brief, is_out_of_memory
from wake2vec.phases.base import Prepared
from wake2vec.train.ranks.group import Post

GetLoss = Callable[[Tensor, int], tuple[Tensor, Tensor]]  # hidden states of a part: loss to go back from, nats
Done = Callable[[int, Tensor | None], None]  # a part whose gradient is in place, and its nats where the loss is known


class Act(Enum):
    FORWARD = auto()
    LOSS = auto()
    BACKWARD = auto()


def programme(rank: int, ranks: int, parts: int, *, overlapped: bool = True) -> list[tuple[Act, int]]:
    """What a rank does, in order, each with the number of its micro-batch.

    As many forward passes are ahead of the backward passes as keep all ranks busy (one forward, one backward: Narayanan
    et al. 2021, arXiv 2104.04473), or none where only one micro-batch may be under way.
    """
    ahead = ranks - rank if overlapped else 0
    losses_ahead = 0 if rank else max(2, ranks - 1) if overlapped else 1
    reached = {Act.FORWARD: 0, Act.LOSS: 0, Act.BACKWARD: 0}
    found: list[tuple[Act, int]] = []
    for part in range(parts):
        until = {Act.FORWARD: part + ahead + 1, Act.LOSS: losses_ahead and part + losses_ahead, Act.BACKWARD: part + 1}
        for act, end in until.items():
            found += [(act, one) for one in range(reached[act], min(parts, end))]
            reached[act] = max(reached[act], min(parts, end))
    return found


def heard(act: Act, rank: int, ranks: int) -> int | None:
    """Whom a rank hears before an act; None where it begins there."""
    if act is Act.FORWARD and rank == 0:
        return None
    return (rank + 1 if act is Act.BACKWARD else rank - 1) % ranks


def told(act: Act, rank: int, ranks: int) -> int | None:
    """Whom it tells what came of it; None where it ends there."""
    if act is Act.BACKWARD and rank == 0:
        return None
    return (rank + 1 if act is Act.FORWARD else rank - 1) % ranks


class Pipeline:
    """One rank's part in the steps of a job."""

    def __init__(self, prepared: Prepared, rank: int, ranks: int) -> None:
        self._prepared, self._rank, self._ranks = prepared, rank, ranks
        self._post = Post()
        self._width = prepared.rows.head.rows.shape[1]

    def run(
        self,
        parts: Sequence[Tensor],  # ids of each micro-batch, [b, s]
        *,
        enter: Callable[[int], None],
        loss: GetLoss,
        done: Done,
        asked_to_stop: Callable[[], bool],
        overlapped: bool,
    ) -> bool:
        """Make all passes; False when a stop was asked for, or another rank gave up, and the gradient is not whole.

        `enter` is called before anything is computed of a part. A rank that fails tells the others that nothing comes,
        and raises when all have heard of it: none waits for what never comes.
        """
        self._parts, self._enter, self._loss = parts, enter, loss
        self._forth: dict[int, tuple[Tensor | None, Tensor]] = {}  # what came in, what went out
        self._nats: dict[int, Tensor] = {}
        is_whole, error = True, None
        for act, part in programme(self._rank, self._ranks, len(parts), overlapped=overlapped):
            came = goes = None
            of, to = heard(act, self._rank, self._ranks), told(act, self._rank, self._ranks)
            if of is not None:  # a loss hears what went forth, and tells what goes back
                came = self._post.receive(self._width, of=of, tag=2 * part + (act is Act.BACKWARD))
                is_whole = is_whole and came is not None
            is_whole = is_whole and not asked_to_stop()
            if is_whole:
                try:
                    goes = self._act(act, part, came)
                    if act is Act.BACKWARD:
                        done(part, self._nats.pop(part, None))
                except Exception as one:
                    # a new one: the traceback of the first would keep the tensors of its pass alive
                    is_whole, error = False, MemoryError(brief(one)) if is_out_of_memory(one) else one
            if not is_whole:
                self._forth.clear()
            if to is not None:
                self._post.send(goes, to=to, tag=2 * part + (act is not Act.FORWARD))
        self._post.wait()
        if error is not None:
            raise error
        return is_whole

    def _act(self, act: Act, part: int, came: Tensor | None) -> Tensor | None:
        self._enter(part)
        came = None if came is None else came.to(self._prepared.device)
        if act is Act.FORWARD:
            failpoint("step.forward")
            return self._forward(part, came)
        if act is Act.LOSS:
            assert came is not None, "the others have sent it"
            return self._back_from_loss(part, came)
        failpoint("step.backward")
        leaf, out = self._forth.pop(part)
        if out.requires_grad:
            out.backward(came)  # type: ignore[no-untyped-call]
        return None if leaf is None else leaf.grad

    def _forward(self, part: int, came: Tensor | None) -> Tensor:
        """Through the own layers. [b, s, d] -> [b, s, d]"""
        prepared, stage = self._prepared, self._prepared.stage
        assert stage is not None, "layers are dealt out"
        if came is None:
            with stage.alone():
                prepared.hidden(self._parts[part])
                out = stage.left
            assert out is not None, "the own layers end somewhere"
        else:
            stage.arrived = came.requires_grad_()
            out = prepared.hidden(self._parts[part])
        self._forth[part] = came, out
        return out.detach()

    def _back_from_loss(self, part: int, came: Tensor) -> Tensor:
        """The gradient of what the last layers gave. [b, s, d] -> [b, s, d]"""
        leaf = came.requires_grad_()
        start, self._nats[part] = self._loss(self._prepared.model.get_decoder().norm(leaf), part)
        start.backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None, "the loss hangs on it"
        return leaf.grad


def part_of(prepared: Prepared, rank: int, ranks: int) -> dict[str, Any]:
    """How a rank's Stepper takes part: with its share of the samples, or with its layers for all of them."""
    if prepared.stage is None:
        return {"rank": rank, "size": ranks}
    return {"pipeline": Pipeline(prepared, rank, ranks)}
