"""What is proved is remembered with all that it hangs on; what does not hold is neither chosen nor fallen back on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import loop_for, material_for, order_for, prepared_for
from wake2vec.contract.plan import WRITTEN_OUT, LayerPath
from wake2vec.model.layers.proof import Proof
from wake2vec.phases.inputs import JobInputs
from wake2vec.train.plans import proven
from wake2vec.train.plans.proven import Proven
from wake2vec.train.stopping import Stop


@pytest.fixture
def material(tmp_path: Path) -> JobInputs:
    return material_for(tmp_path, order_for(tmp_path))


def anew(material: JobInputs, said: list[str] | None = None) -> Proven:
    return Proven(material, prepared_for(material), (said if said is not None else []).append)


def refuse(monkeypatch: pytest.MonkeyPatch, *paths: LayerPath) -> list[LayerPath]:
    """Some paths differ at layer 1. Returns what is proved from now on."""
    proved: list[LayerPath] = []

    def prove(_model: Any, path: LayerPath, _right: Any) -> Proof:
        proved.append(path)
        return Proof(path=path, place="the output of layer 1", apart=0.29 if path in paths else 0.0, bound=1e-6)

    monkeypatch.setattr(proven, "prove", prove)
    return proved


def test_the_paths_of_the_tiny_job_hold(material: JobInputs) -> None:
    said: list[str] = []
    found = anew(material, said)

    assert all(found.holds(path) for path in (*WRITTEN_OUT, "recompute", "autograd"))
    assert (said, found.refusals) == ([], ())


def test_a_proof_is_made_once_for_all_attempts(material: JobInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    proved = refuse(monkeypatch, "offload")

    for _attempt in range(2):
        found = anew(material)
        assert [found.holds(path) for path in (*WRITTEN_OUT, *WRITTEN_OUT)] == [True, True, False] * 2

    assert proved == list(WRITTEN_OUT)


@pytest.mark.parametrize("change", ["versions", "weights", "range", "torn", "foreign"])
def test_a_proof_of_something_else_counts_for_nothing(
    material: JobInputs, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    proved, prepared = refuse(monkeypatch), prepared_for(material)
    assert Proven(material, prepared, print).holds("lean")

    if change == "versions":
        monkeypatch.setattr(proven, "versions", lambda: {"torch": "9.9"})
    elif change == "weights":
        material = replace(material, order=material.order.model_copy(update={"fingerprint": "another"}))
    elif change == "range":
        prepared.rows.embedding.out_dtype = torch.float32
    else:
        material.run.proofs.write_text('{"half' if change == "torn" else "[1]")

    assert Proven(material, prepared, print).holds("lean")
    assert proved == ["lean", "lean"]


def test_a_refusal_names_layer_and_distance_and_is_said_once(
    material: JobInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "lean")
    said: list[str] = []
    found = anew(material, said)

    assert not found.holds("lean")
    assert not found.holds("lean")

    refusal = "lean: the output of layer 1 is 0.29 away from the library's; rounding explains 1e-06: not used"
    assert said == [refusal]
    assert found.refusals == (refusal,)


def test_a_proof_for_which_no_memory_is_left_is_not_remembered(
    material: JobInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(proven, "prove", full)
    found = anew(material)
    assert not found.holds("lean")
    assert "no memory" in found.refusals[0]

    monkeypatch.undo()
    assert anew(material).holds("lean")


def test_memory_that_is_short_for_the_librarys_layers_is_enough_for_recomputing_them(
    material: JobInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, tried = proven.refer, []

    def refer(model: Any, ids: Any, dtype: Any, path: LayerPath) -> Any:
        tried.append(path)
        if path == "autograd":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(model, ids, dtype, path)

    monkeypatch.setattr(proven, "refer", refer)

    assert anew(material).holds("lean")
    assert tried == ["autograd", "recompute"]


@pytest.mark.parametrize(
    ("refused", "taken"), [(("lean",), "checkpoint"), (("lean", "checkpoint"), "offload"), (WRITTEN_OUT, "recompute")]
)
def test_a_job_takes_the_next_path_that_holds_and_its_ledger_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: tuple[LayerPath, ...], taken: LayerPath
) -> None:
    refuse(monkeypatch, *refused)
    loop = loop_for(material_for(tmp_path, order_for(tmp_path, train__layers="lean")), Stop())

    loop.begin()

    assert loop.progress.plan.layers == taken
    notes = [row["text"] for row in loop.progress.rows if row.get("event") == "layers"]
    assert [note.split(":")[0] for note in notes] == list(refused)
    assert all("layer 1 is 0.29 away" in note for note in notes)


def test_a_remembered_plan_is_no_way_around_the_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, *WRITTEN_OUT)
    remembered = {"micro_batch": 2, "layers": "lean", "embedding": "device", "head": "as-is", "block_splits": 1}
    order = order_for(tmp_path).model_copy(update={"plan": remembered})

    loop = loop_for(material_for(tmp_path, order), Stop())

    assert loop.progress.plan.layers == "autograd"


def test_running_out_of_memory_leads_to_no_path_that_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, *WRITTEN_OUT)
    order = order_for(tmp_path, train__micro_batch=1, train__allow_shorter_context=False)
    loop = loop_for(material_for(tmp_path, order), Stop())
    loop.begin()
    assert loop.progress.plan.layers == "autograd"

    loop.ladder.shrink("oom_after_defragmenting", "full")

    assert loop.progress.plan.layers == "recompute"
    assert json.loads(material_for(tmp_path, order).run.proofs.read_text())
