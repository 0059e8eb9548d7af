"""Real ranks over gloo: rank 0 in this process, the others as processes of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import distributed_c10d

from tests.tiny import material_for, order_for, prepared_for, run_of
from tests.zygote import start_ranks
from wake2vec.contract.errors import NoGpu, RankLost
from wake2vec.contract.failpoints import VARIABLE
from wake2vec.contract.order import Order
from wake2vec.contract.rundir import STOP_SIGNALS
from wake2vec.model.device import copy_to_host, require_card
from wake2vec.train.attempt import start_loop
from wake2vec.train.heartbeat import HeartbeatWriter
from wake2vec.train.loop import Loop
from wake2vec.train.plans.spreading import spread
from wake2vec.train.ranks import group, team
from wake2vec.train.ranks.member import Member, answer
from wake2vec.train.ranks.stages import Stages
from wake2vec.train.ranks.team import Failed, Prepare, Ranks
from wake2vec.train.stopping import Stop

SMALL: dict[str, Any] = {"train__steps": 4, "checkpoint__every_steps": 2, "evaluate__every_steps": 4}
Start = Callable[..., Loop]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """A loop on so many ranks, whose processes live until the next is asked for; `rule` is a failpoint of theirs."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(team, "start_processes", start_ranks)
    with ExitStack() as stack:

        def start(
            folder: Path, order: Order, name: str, ranks: int, *, rule: str = "", stop: Stop | None = None
        ) -> Loop:
            stack.close()
            material = material_for(folder, order, name)
            pulse = HeartbeatWriter(material.run, 1)
            others = None
            if layers := spread(material, ranks):
                others = stack.enter_context(Stages(material.run, order, layers, beat=pulse.beat, lost=print))
                material = replace(material, stage=others.stage)
            elif ranks > 1:
                monkeypatch.setenv(VARIABLE, rule)
                others = stack.enter_context(Ranks(material.run, order, ranks, beat=pulse.beat, lost=print))
                monkeypatch.delenv(VARIABLE)
            prepared = prepared_for(material)
            if others is not None and not layers:
                others.join(prepared.device)
            return start_loop(material, prepared, stop or Stop(), pulse, print, others)

        yield start


def weights(loop: Loop) -> dict[str, torch.Tensor]:
    return copy_to_host(loop.prepared.tensors) | copy_to_host(loop.optimizer.state_tensors())


def losses(loop: Loop) -> list[float]:
    return [row["loss"] for row in loop.progress.rows if row["kind"] != "event"]


def events(loop: Loop, kind: str) -> list[str]:
    return [row["text"] for row in loop.progress.rows if row.get("event") == kind]


def largest_difference(one: Loop, other: Loop) -> float:
    """In what was trained, as a share of the largest value."""
    mine, theirs = (copy_to_host(loop.prepared.trainable) for loop in (one, other))
    largest = max(float(tensor.abs().max()) for tensor in theirs.values())
    return max(float((mine[name] - theirs[name]).abs().max()) for name in theirs) / largest


def test_a_fixed_sum_gives_the_same_bits_on_one_two_and_four_ranks(tmp_path: Path, start: Start) -> None:
    own = {"train__row_steps": "own", "train__weight_decay": 0.01}  # a state of its own, on every rank
    order = order_for(tmp_path, train__reduction="fixed", **own, **SMALL)
    alone = start(tmp_path, order, "r1", 1)
    alone.run_to_end(lambda: None)
    for ranks in (2, 4):
        shared = start(tmp_path, order, f"r{ranks}", ranks)
        shared.run_to_end(lambda: None)

        assert losses(shared) == losses(alone)
        assert all(torch.equal(tensor, weights(alone)[name]) for name, tensor in weights(shared).items())


def test_two_ranks_train_adapters_as_one_does_and_a_job_moves_between_them(tmp_path: Path, start: Start) -> None:
    source = start(tmp_path, order_for(tmp_path, name="p1", **SMALL), "p1", 1)
    source.run_to_end(lambda: None)
    order = order_for(
        tmp_path,
        of="tiny_p2",
        name="p2",
        source=run_of(tmp_path, "p1"),
        **SMALL | {"train__micro_batch": 2, "evaluate__every_steps": 2},
    )
    for name in ("alone", "moved"):
        run_of(tmp_path, name).root.mkdir()
        (run_of(tmp_path, name).source).symlink_to(run_of(tmp_path, "p2").source)
    alone = start(tmp_path, order, "alone", 1)
    alone.run_to_end(lambda: None)

    stop = Stop()
    first = start(tmp_path, order, "moved", 2, stop=stop)
    first.run_to_end(lambda: stop.ask("for this test") if first.progress.step == 2 else None)
    second = start(tmp_path, order, "moved", 1)
    assert second.progress.step == 2
    second.run_to_end(lambda: None)

    # the same sums of the same micro-batches; of others, Adam makes the rounding of a small gradient count in full
    assert largest_difference(second, alone) == 0.0
    assert losses(second) == losses(alone)
    assert events(second, "regime") == ["goes on with 1 card after 2 cards"]


def test_short_memory_on_one_rank_moves_all_down_and_its_death_is_told(tmp_path: Path, start: Start) -> None:
    order = order_for(tmp_path, **SMALL | {"train__micro_batch": 2})
    alone = start(tmp_path, order, "alone", 1)
    alone.run_to_end(lambda: None)

    rule = "rank.accumulate=oom:1,rank.accumulate=oom:2,rank.accumulate=kill:5"
    shared = start(tmp_path, order, "shared", 2, rule=rule)
    with pytest.raises(RankLost, match="rank 1 of 2 is gone: it was ended by signal 9"):
        shared.run_to_end(lambda: None)

    told = events(shared, "oom")
    assert len(told) == 2
    assert "rank 1: out of memory" in told[0]
    assert shared.progress.plan.micro_batch == 1
    assert shared.progress.step == 2
    assert losses(shared) == pytest.approx(losses(alone)[: len(losses(shared))], rel=1e-6)


def test_a_rank_that_stands_still_ends_the_attempt(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = start(tmp_path, order_for(tmp_path, **SMALL), "still", 2)
    monkeypatch.setattr(team, "PATIENCE_SECONDS", 0.5)
    assert isinstance(loop.team, Ranks)
    os.kill(loop.team.pids[0], signal.SIGSTOP)

    with pytest.raises(RankLost, match="rank 1 of 2 has not answered"):
        loop.run_to_end(lambda: None)


def test_cards_that_differ_do_not_begin(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "card_name", lambda device: "Tesla T4")

    with pytest.raises(NoGpu, match=r"differ: Tesla T4 \(rank 0\), cpu \(rank 1\); choose equal ones"):
        start(tmp_path, order_for(tmp_path, **SMALL), "differ", 2)


def test_a_rank_without_its_card_is_told_as_such_and_is_no_lost_rank(tmp_path: Path) -> None:
    order = order_for(tmp_path, **SMALL).model_copy(
        update={"on_cards": True, "more_locks": [str(tmp_path / "gpu1.lock")]}
    )
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        found = answer(Member(run_of(tmp_path), order, rank=1, size=2), Prepare())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

    assert isinstance(found, Failed)
    with pytest.raises(NoGpu, match=r"rank 1: card 2 of 2: the driver shows it, and PyTorch .* sees 0") as told:
        team.raise_failures([found])
    assert "hide the cards with CUDA_VISIBLE_DEVICES=" in str(told.value)
    with pytest.raises(NoGpu, match="card 1 of 2"):
        require_card(order)


def test_ranks_that_cannot_talk_name_what_to_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nowhere0")
    # groups are counted, failed ones too, and two ranks whose counts differ wait for one another: the next test's would
    monkeypatch.setattr(distributed_c10d, "_group_count", 0)

    with pytest.raises(NoGpu, match=r"rank 0 of 1 cannot talk to the others over gloo: .*; set GLOO_SOCKET_IFNAME to"):
        group.join(tmp_path / "meet", 0, 1, torch.device("cpu"))


@pytest.mark.parametrize("dtype", ["bf16", pytest.param("fp16", marks=pytest.mark.sweep)])
def test_rows_in_16_bits_get_the_same_bits_on_one_and_two_ranks(tmp_path: Path, start: Start, dtype: str) -> None:
    order = order_for(tmp_path, train__reduction="fixed", vocab__dtype=dtype, **SMALL)
    found = []
    for ranks in (1, 2):
        loop = start(tmp_path, order, f"r{ranks}", ranks)
        loop.run_to_end(lambda: None)
        found.append((weights(loop), losses(loop)))

    (mine, figures), (theirs, same) = found
    assert mine["rows"].element_size() == 2
    assert figures == same
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
