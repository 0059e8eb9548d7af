"""Jobs whose rows are held in 16 bits: same bits however they run, nothing lost on the way to P2, P3 and an export."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.tiny import loop_for, material_for, order_for, prepared_for, run_of
from tests.unit.wake2vec.train.test_attempt import asking_after, end, nothing, untied_model  # noqa: F401
from wake2vec.contract.errors import Diverged
from wake2vec.contract.files import write_json
from wake2vec.contract.manifest import manifest_sha256, saved_steps
from wake2vec.contract.order import Order, Source
from wake2vec.data.seen_words import SeenWords
from wake2vec.model.precision import DTYPES, HeldRows
from wake2vec.phases.table import PHASES
from wake2vec.train.loop import Loop
from wake2vec.train.stopping import Stop
from wake2vec.use.export import export

SHORT: dict[str, Any] = {"train__steps": 4, "checkpoint__every_steps": 2, "evaluate__every_steps": 4}
KINDS = ("bf16", pytest.param("fp16", marks=pytest.mark.sweep))


def p1_order(folder: Path, dtype: str, name: str = "p1", **changes: Any) -> Order:
    return order_for(folder, name=name, **{"vocab__dtype": dtype, "train__warmup_ratio": 0.0, **SHORT, **changes})


def finished(folder: Path, order: Order, name: str) -> Loop:
    loop = loop_for(material_for(folder, order, name))
    loop.run_to_end(nothing)
    return loop


def cut_at(folder: Path, order: Order, name: str, steps: int) -> Loop:
    """Stopped after so many steps, and gone on with by another process's worth of state."""
    stop, material = Stop(), material_for(folder, order, name)
    first = loop_for(material, stop)
    first.stepper.run = asking_after(first, stop, steps=steps)  # type: ignore[method-assign]
    assert first.run_to_end(nothing).outcome == "yielded"
    second = loop_for(material)
    assert second.progress.step == steps
    second.run_to_end(nothing)
    return second


def same_logits(loop: Loop, folder: Path, dtype: str | None) -> None:
    """Of base and new tokens, from an export that plain transformers loads."""
    run, material = loop.run, loop.material
    write_json(run.order, material.order.model_dump(mode="json"))
    run.final.mkdir()
    PHASES[material.job.phase].export(loop.prepared, material, run.final)
    ids = torch.arange(material.id_map.first_new_id - 20, material.id_map.n_ids)[None]
    with torch.no_grad():
        expected = loop.prepared.model.eval()(input_ids=ids).logits
    for step in ("final", saved_steps(run)[0]):
        out = folder / f"out-{step}"
        export(run, out, dtype=dtype, step=step, merge=material.job.phase != "p1")
        model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
        with torch.no_grad():
            torch.testing.assert_close(model(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("tied", "fp16"),
        ("untied", "bf16"),
        pytest.param("tied", "bf16", marks=pytest.mark.sweep),
        pytest.param("untied", "fp16", marks=pytest.mark.sweep),
    ],
)
def test_it_resumes_in_the_same_bits_and_its_export_is_a_plain_model(
    tmp_path: Path,
    untied_model: str,  # noqa: F811
    kind: str,
    dtype: str,
) -> None:
    model = {"model__base": untied_model} if kind == "untied" else {}  # rows of its own are calibrated too
    order = p1_order(tmp_path, dtype, **model)
    uncut = finished(tmp_path, order, "uncut")
    cut = cut_at(tmp_path, order, "p1", 3)

    assert end(cut) == end(uncut)
    saved = load_file(cut.run.checkpoint(4) / "trainable.safetensors")
    state = load_file(cut.run.checkpoint(4) / "optimizer.safetensors")
    assert set(saved) == ({"rows"} if kind == "tied" else {"rows.input", "rows.output"})
    assert {tensor.dtype for tensor in saved.values()} == {DTYPES[dtype]}
    assert {tensor.dtype for name, tensor in state.items() if name != "step"} == {torch.float32}
    assert all(isinstance(rows, HeldRows) for rows in cut.prepared.trainable.values())
    same_logits(cut, tmp_path, "fp32")


def test_rows_of_words_that_were_not_met_stay_as_they_began_to_the_bit(tmp_path: Path) -> None:
    order = p1_order(tmp_path, "bf16", train__optimizer="adamw", train__weight_decay=0.1)
    assert order.training.train.row_steps == "own"
    material = material_for(tmp_path, order, "p1")
    began = prepared_for(material).trainable["rows"].detach().clone()
    loop = loop_for(material)
    loop.run_to_end(nothing)

    job, head = material.job, loop.prepared.rows.head
    met = SeenWords(
        material.blocks, batch=job.train.batch, seed=job.data.seed, first_new_id=head.first_new_id, n_new=len(began)
    ).up_to(job.train.steps - 1)  # type: ignore[operator]
    same = (head.rows.detach() == began).all(dim=1).numpy()
    assert 0 < met.sum() < len(met)
    assert (same == ~met).all()


@pytest.mark.parametrize("dtype", KINDS)
def test_in_a_fixed_order_any_micro_batch_and_layer_path_gives_the_same_bits(tmp_path: Path, dtype: str) -> None:
    found = []
    for size, layers in ((1, "autograd"), (4, "autograd"), (2, "lean")):
        plan = {"train__micro_batch": size, "train__layers": layers, "train__reduction": "fixed"}
        loop = finished(tmp_path, p1_order(tmp_path, dtype, name=f"{layers}{size}", **plan), f"{layers}{size}")
        found.append(loop.prepared.trainable["rows"].detach().clone())

    assert torch.equal(found[0], found[1])
    # another path rounds its products otherwise: an entry may be drawn to the other neighbour
    assert float((found[0].float() - found[2].float()).abs().max()) <= 2.0**-7


def test_forms_share_rows_in_bf16_beside_offsets_in_fp32(tmp_path: Path) -> None:
    order = p1_order(tmp_path, "bf16", vocab__forms="shared")
    uncut = finished(tmp_path, order, "uncut")
    cut = cut_at(tmp_path, order, "p1", 2)

    assert end(cut) == end(uncut)
    kinds = {name: tensor.dtype for name, tensor in cut.prepared.trainable.items()}
    assert kinds == {"rows": torch.bfloat16, "rows.forms": torch.float32}
    same_logits(cut, tmp_path, "fp32")  # a form's row is the sum of both, in fp32


def on(source: Loop, folder: Path, of: str, name: str, below: Loop | None = None, **changes: Any) -> Order:
    """A job on another; `below` is where the rows come from, when its source has none."""
    order = order_for(folder, of=of, name=name, source=source.run, **{**SHORT, **changes})
    if below is None:
        return order
    step, place = saved_steps(below.run)[0], "source/rows"
    shutil.copytree(below.run.checkpoint(step), run_of(folder, name).root / place / f"checkpoint-{step}")
    rows = Source(job="p1", step=step, manifest_sha256=manifest_sha256(below.run.checkpoint(step)), folder=place)
    assert order.source is not None
    return order.model_copy(update={"source": order.source.model_copy(update={"rows": rows})})


P3 = {"geometry__ramp_steps": 2, "morphemes__nulls": 5}
LORA = {"lora__r": 4, "lora__alpha": 8}


@pytest.mark.parametrize("dtype", KINDS)
def test_a_p2_leaves_the_rows_as_they_are_and_a_p3_trains_on_in_the_same_numbers(tmp_path: Path, dtype: str) -> None:
    p1 = finished(tmp_path, p1_order(tmp_path, dtype), "p1")
    rows = p1.prepared.trainable["rows"].detach().clone()
    p2 = finished(tmp_path, on(p1, tmp_path, "tiny_p2", "p2", **LORA), "p2")

    assert torch.equal(p2.prepared.rows.head.rows, rows)
    assert not p2.prepared.rows.head.rows.requires_grad
    same_logits(p2, tmp_path / "p2", "fp32")
    of_p3 = on(p2, tmp_path, "tiny_p3", "p3", below=p1, **P3, **LORA)
    again = on(p2, tmp_path, "tiny_p3", "again", below=p1, **P3, **LORA)
    p3 = finished(tmp_path, of_p3, "p3")
    assert p3.progress.evaluations[0].loss == pytest.approx(p2.progress.evaluations[-1].loss, abs=1e-6)
    assert end(cut_at(tmp_path, again, "again", 3)) == end(p3)
    saved = load_file(p3.run.checkpoint(4) / "trainable.safetensors")
    assert saved["rows"].dtype == rows.dtype
    assert not torch.equal(saved["rows"], rows)
    same_logits(p3, tmp_path / "p3", "fp32")


def test_rows_that_go_on_in_a_p2_stay_in_their_numbers_and_forms_get_rows_of_them(tmp_path: Path) -> None:
    for forms in ("one", "shared"):
        p1 = finished(tmp_path, p1_order(tmp_path, "bf16", name=f"p1-{forms}", vocab__forms=forms), f"p1-{forms}")
        changes = {"lora__train": "lora+rows", "model__load": "fp32", **LORA}
        p2 = finished(tmp_path, on(p1, tmp_path, "tiny_p2", f"p2-{forms}", **changes), f"p2-{forms}")

        (rows,) = (tensor for name, tensor in p2.prepared.trainable.items() if name == "rows")
        assert (rows.dtype, len(rows)) == (torch.bfloat16, p2.material.id_map.n_new)
        at_rest = prepared_for(
            material_for(tmp_path, on(p1, tmp_path, "tiny_p2", f"rest-{forms}", model__load="fp32"), f"rest-{forms}")
        ).rows.head.rows
        whole = p1.prepared.rows.head.forms
        right = p1.prepared.rows.head.rows if whole is None else whole.whole(p1.prepared.rows.head.rows.detach())
        assert torch.equal(at_rest.float(), right.float())


def test_a_checkpoint_with_rows_in_fp32_is_none_of_a_job_in_16_bits(tmp_path: Path) -> None:
    finished(tmp_path, p1_order(tmp_path, "fp32"), "p1")
    assert loop_for(material_for(tmp_path, p1_order(tmp_path, "fp32"), "p1")).progress.step == 4

    assert loop_for(material_for(tmp_path, p1_order(tmp_path, "bf16"), "p1")).progress.step == 0


def test_a_job_whose_rows_leave_the_range_of_fp16_ends_with_its_remedy_and_its_last_checkpoint(tmp_path: Path) -> None:
    at_rest = {"checkpoint__every_steps": 1, "evaluate__every_steps": 2}  # an evaluation waits for its checkpoint
    order = p1_order(tmp_path, "fp16", train__steps=12, train__schedule="constant", **at_rest)
    loop = loop_for(material_for(tmp_path, order, "p1"))
    take = loop.optimizer.step

    def step(lr: float, **more: Any) -> None:
        take(lr if loop.progress.step < 2 else 1e9, **more)

    loop.optimizer.step = step  # type: ignore[method-assign]
    with pytest.raises(Diverged, match=r"left the range of 16 bits.*vocab\.dtype"):
        loop.run_to_end(nothing)
    assert saved_steps(loop.run)[0] == 2
