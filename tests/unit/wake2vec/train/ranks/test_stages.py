"""A model whose layers lie on several real ranks, over gloo: rank 0 in this process, the others of their own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.machine import JOBS
from tests.tiny import material_for, order_for, prepared_for, run_of
from tests.zygote import start_ranks
from wake2vec.contract.errors import ModelError, RankLost
from wake2vec.contract.failpoints import VARIABLE
from wake2vec.contract.models.weight_files import ADAPTER_FILE
from wake2vec.contract.order import Order
from wake2vec.hopes.reader import adapters_off
from wake2vec.model.device import copy_to_host
from wake2vec.phases.table import PHASES
from wake2vec.show.samples import read_samples
from wake2vec.train.attempt import start_loop
from wake2vec.train.heartbeat import HeartbeatWriter
from wake2vec.train.loop import Loop
from wake2vec.train.plans.spreading import spread
from wake2vec.train.ranks import team
from wake2vec.train.ranks.stages import Stages
from wake2vec.train.ranks.team import Ranks
from wake2vec.train.stopping import Stop

LAYERS = 4
SMALL: dict[str, Any] = {
    "train__steps": 4, "train__micro_batch": 1, "checkpoint__every_steps": 2, "evaluate__every_steps": 4,
    "train__cards": 2, "train__spread": "layers", "lora__dropout": 0.1,
}  # fmt: skip
P1 = {key: value for key, value in SMALL.items() if not key.startswith("lora")}
Start = Callable[..., Loop]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with more layers: `tied` and `untied`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("models")
    for name, tied in (("tied", True), ("untied", False)):
        torch.manual_seed(3)
        config = AutoConfig.from_pretrained(JOBS / "tiny" / "model")
        config.num_hidden_layers, config.tie_word_embeddings, config.dtype = LAYERS, tied, torch.float32
        shutil.copytree(JOBS / "tiny" / "model", folder / name, ignore=shutil.ignore_patterns("*.safetensors"))
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
    return folder


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """A loop on one rank, or with its layers or samples dealt to several, which live until the next is asked for."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(team, "start_processes", start_ranks)
    with ExitStack() as stack:

        def start(
            folder: Path, order: Order, name: str, ranks: int = 1, *, rule: str = "", stop: Stop | None = None,
            samples: bool = False,
        ) -> Loop:  # fmt: skip
            stack.close()
            material = material_for(folder, order, name)
            pulse = HeartbeatWriter(material.run, 1)
            monkeypatch.setenv(VARIABLE, rule)
            others: Ranks | None = None
            if ranks > 1 and samples:
                others = stack.enter_context(Ranks(material.run, order, ranks, beat=pulse.beat, lost=print))
            elif ranks > 1:
                layers = spread(material, ranks)
                others = stack.enter_context(Stages(material.run, order, layers, beat=pulse.beat, lost=print))
                material = replace(material, stage=others.stage)
            monkeypatch.delenv(VARIABLE)
            prepared = prepared_for(material)
            if others is not None and samples:
                others.join(prepared.device)
            return start_loop(material, prepared, stop or Stop(), pulse, print, others)

        yield start


def weights(loop: Loop) -> dict[str, torch.Tensor]:
    loop.team.gather(loop.prepared, loop.optimizer)
    return copy_to_host(loop.prepared.tensors) | copy_to_host(loop.optimizer.state_tensors())


def figures(loop: Loop) -> list[tuple[Any, ...]]:
    """All that the ledger has of steps and evaluations but time."""
    left_out = ("seconds", "attempt", "checkpoint")
    rows = [row for row in loop.progress.rows if row["kind"] != "event"]
    return [tuple((key, str(value)) for key, value in sorted(row.items()) if key not in left_out) for row in rows]


def losses(loop: Loop) -> list[float]:
    return [row["loss"] for row in loop.progress.rows if row["kind"] != "event"]


def events(loop: Loop, kind: str) -> list[str]:
    return [row["text"] for row in loop.progress.rows if row.get("event") == kind]


def same_bits(one: Loop, other: Loop) -> bool:
    mine, theirs = weights(one), weights(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in theirs)


def p1(models: Path, folder: Path, which: str, **changes: Any) -> Order:
    return order_for(folder, model__base=str(models / which), **{**P1, **changes})


# rows in fp32 get the same bits below, in a step of one block
@pytest.mark.parametrize("dtype", [pytest.param("fp32", marks=pytest.mark.sweep), "bf16"])
def test_rows_of_an_untied_model_get_the_bits_of_one_card_and_so_do_sample_texts(
    tmp_path: Path, models: Path, start: Start, dtype: str
) -> None:
    order = p1(models, tmp_path, "untied", evaluate__samples=1, vocab__dtype=dtype)
    found = []
    for name, ranks in (("alone", 1), ("dealt", 2)):
        loop = start(tmp_path, order, name, ranks)
        loop.run_to_end(lambda: None)
        loop.beside.tokens = 12
        loop.sample()
        found.append((weights(loop), figures(loop), read_samples(loop.run)))

    (mine, *rest), (theirs, *same) = found
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    assert rest == same
    assert rest[1][0].tokens == 12


def test_shared_rows_are_off_by_rounding_and_not_at_all_in_a_fixed_order(
    tmp_path: Path, models: Path, start: Start
) -> None:
    for reduction in ("fast", "fixed"):
        order = p1(models, tmp_path, "tied", train__reduction=reduction, name=reduction)
        alone = start(tmp_path, order, reduction)
        alone.run_to_end(lambda: None)
        dealt = start(tmp_path, order, f"{reduction}-2", 2)
        dealt.run_to_end(lambda: None)

        assert losses(dealt) == pytest.approx(losses(alone), rel=1e-6)
        mine, theirs = dealt.prepared.trainable["rows"], alone.prepared.trainable["rows"]
        assert float((mine - theirs).detach().abs().max() / theirs.detach().abs().max()) < 1e-6
        assert same_bits(dealt, alone) == (reduction == "fixed")


def test_adapters_get_the_bits_of_one_card_on_any_cards_that_a_job_moves_to(
    tmp_path: Path, models: Path, start: Start
) -> None:
    body = {"model__base": str(models / "untied"), "model__load": "nf4"}
    source = start(tmp_path, order_for(tmp_path, name="p1", **P1, **body), "p1")
    source.run_to_end(lambda: None)
    changes = (
        SMALL
        | body
        | {"train__steps": 8, "train__optimizer": "adamw", "train__reduction": "fixed", "evaluate__every_steps": 2}
    )
    order = order_for(tmp_path, of="tiny_p2", name="p2", source=run_of(tmp_path, "p1"), **changes)
    shutil.copytree(run_of(tmp_path, "p2").root, run_of(tmp_path, "moved").root)
    alone = start(tmp_path, order, "p2")
    alone.run_to_end(lambda: None)

    def go_on(until: int, ranks: int, *, samples: bool = False) -> Loop:
        stop = Stop()
        loop = start(tmp_path, order, "moved", ranks, stop=stop, samples=samples)
        loop.run_to_end(lambda: stop.ask("for this test") if loop.progress.step == until < 8 else None)
        assert loop.progress.step == until
        return loop

    go_on(2, 1)
    go_on(4, 2)
    go_on(6, 2, samples=True)
    moved = go_on(8, 3)

    assert same_bits(moved, alone)
    assert figures(moved) == figures(alone)
    assert events(moved, "regime") == [
        "goes on with 2 cards, each with some of the layers, after 1 card",
        "goes on with 2 cards after 2 cards, each with some of the layers",
        "goes on with 3 cards, each with some of the layers, after 2 cards",
    ]
    assert exported(moved, tmp_path / "moved") == exported(alone, tmp_path / "alone")
    # the body without its adapters, as at the end of a job it is read beside the trained one
    ids = torch.arange(16).unsqueeze(0)
    with torch.no_grad(), adapters_off(moved.prepared.model), adapters_off(alone.prepared.model):
        assert torch.equal(moved.prepared.hidden(ids), alone.prepared.hidden(ids))
    with torch.no_grad():
        assert torch.equal(moved.prepared.hidden(ids), alone.prepared.hidden(ids))


def exported(loop: Loop, folder: Path) -> bytes:
    folder.mkdir()
    PHASES["p2"].export(loop.prepared, loop.material, folder)
    return (folder / ADAPTER_FILE).read_bytes()


def test_short_memory_on_one_rank_moves_all_down_and_its_death_is_told(
    tmp_path: Path, models: Path, start: Start
) -> None:
    order = p1(models, tmp_path, "untied", train__micro_batch=2)
    alone = start(tmp_path, order, "alone")
    alone.run_to_end(lambda: None)

    rule = "step.backward=oom:1,step.forward=oom:4,rank.update=kill:3"
    dealt = start(tmp_path, order, "dealt", 2, rule=rule)
    with pytest.raises(RankLost, match="rank 1 of 2 is gone: it was ended by signal 9"):
        dealt.run_to_end(lambda: None)

    first, second = events(dealt, "oom")
    assert "rank 1: out of memory (failpoint step.backward): the same plan once more" in first
    assert "rank 1: out of memory (failpoint step.forward): micro-batch 2 to 1" in second
    assert dealt.progress.plan.micro_batch == 1
    assert dealt.progress.step == 2
    assert losses(dealt) == pytest.approx(losses(alone)[: len(losses(dealt))], rel=1e-6)


def test_more_cards_than_layers_are_refused(tmp_path: Path, models: Path, start: Start) -> None:
    with pytest.raises(ModelError, match=r"train.cards: 5 cards for the 4 layers of .*; give at most 4"):
        start(tmp_path, p1(models, tmp_path, "untied", train__cards=4), "more", 5)


def test_layers_share_a_step_of_one_block(tmp_path: Path, models: Path, start: Start) -> None:
    order = p1(models, tmp_path, "untied", train__batch=1)
    alone, dealt = (start(tmp_path, order, f"on-{ranks}", ranks) for ranks in (1, 2))
    for loop in (alone, dealt):
        loop.run_to_end(lambda: None)

    assert losses(dealt) == losses(alone)
    assert same_bits(dealt, alone)
