"""A model whose layers lie on several real ranks, over gloo: rank 0 in this process, the others of their own."""

from __future__ import annotations

import json
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
from wake2vec.contract.errors import ModelError, NoGpu, RankLost
from wake2vec.contract.failpoints import VARIABLE
from wake2vec.contract.order import Order
from wake2vec.contract.rundir import RunDir
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
    "train__steps": 4, "train__micro_batch": 1, "checkpoint__every_steps": 2, "evaluate__every_steps": 2,
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


def test_rows_of_an_untied_model_get_the_bits_of_one_card(tmp_path: Path, models: Path, start: Start) -> None:
    order = p1(models, tmp_path, "untied")
    alone = start(tmp_path, order, "alone")
    alone.run_to_end(lambda: None)
    dealt = start(tmp_path, order, "dealt", 2)
    dealt.run_to_end(lambda: None)

    assert same_bits(dealt, alone)
    assert figures(dealt) == figures(alone)
