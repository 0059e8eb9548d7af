"""A model whose layers are dealt out to the cards of a host: who holds which, and what a step takes. Imports no torch.

The first card holds the vocabulary too: embedding, head, new rows and loss. Micro-batches follow one another through
the cards and back to the first; `wake2vec.train.ranks.pipeline` is what is counted here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from wake2vec.contract.budget import Budget, Card, Workload, budget, work
from wake2vec.contract.plan import Plan

# Hidden states between two processes of one host over gloo, beside the copies from and to the cards. Messages of 10 MB
# took 0.4 s of a processor for each GB on either side; with twenty busy processes on its two cores they got 0.2 GB/s.
GLOO_GBS = 1.0


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """What a step takes at least, and what is lost of it: cards that wait, hidden states on their way."""

    seconds: float
    waiting: float = 0.0  # share of the cards' time
    link: float = 0.0  # seconds of each card


def stages(job: Workload, layers: Sequence[int]) -> list[Workload]:
    """What each card has to do, where each holds so many layers in turn; the job itself where there is one card."""
    if len(layers) < 2:
        return [job]
    bare = replace(job, shape=replace(job.shape, matrix_rows=0, tokenizer_length=0), new_tokens=0)
    return [
        replace(one, shape=replace(one.shape, layers=count), in_flight=len(layers) + 1 - rank)
        for rank, count in enumerate(layers)
        for one in [bare if rank else job]
    ]


def needed(job: Workload, plan: Plan, layers: Sequence[int] = ()) -> Budget:
    """Of the card that needs most."""
    return max((budget(stage, plan) for stage in stages(job, layers)), key=lambda one: one.total)


def step_time(job: Workload, plan: Plan, card: Card, layers: Sequence[int] = ()) -> StepTime:
    """Without any overlap of arithmetic and copies, and with the slowest card setting the pace."""
    each = [work(stage, plan).seconds(card.half_tflops, card.bandwidth_gbs) for stage in stages(job, layers)]
    if len(each) == 1:
        return StepTime(seconds=each[0])
    parts = job.batch // plan.micro_batch * plan.block_splits
    # each card sends and receives hidden states and their gradient once, each time from card to host to host to card
    numbers = 4 * job.batch * job.seq_len * job.shape.width
    link = numbers * job.number_bytes * (1 / card.link_gbs + 1 / GLOO_GBS) / 1e9
    seconds = (parts + len(each) - 1) / parts * (max(each) + link)
    return StepTime(seconds=seconds, waiting=1 - (sum(each) / len(each) + link) / seconds, link=link)


def deal_layers(
    job: Workload, plans: Iterable[Plan], *, card: Card, cards: int, limit_bytes: float | None
) -> tuple[int, ...]:
    """Layers of each card for the fastest step that fits; where none does, those that leave most room.

    All cards but the first get as many, or one more. A function of its arguments alone, so that all ranks agree.
    """
    plans, ways = list(plans), list(_ways(job.shape.layers, cards))

    def lack(layers: tuple[int, ...], plan: Plan) -> int:
        found = needed(job, plan, layers).total
        return 0 if limit_bytes is None or found <= limit_bytes else found

    tried = (
        (lack(layers, plan), step_time(job, plan, card, layers).seconds, layers) for layers in ways for plan in plans
    )
    return min(tried)[2]


def _ways(layers: int, cards: int) -> Iterable[tuple[int, ...]]:
    for first in range(1, layers - cards + 2):
        rest, others = layers - first, cards - 1
        yield (first, *(rest // others + (place < rest % others) for place in range(others)))
