"""Geometry of a run as it lies on disk: rows, published matrices and the start are found and fit each other."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from wake2vec.contract.errors import InputError
from wake2vec.contract.files import FileDigest, read_json, write_json
from wake2vec.contract.manifest import Manifest
from wake2vec.contract.options import GeometryOptions, ReportOptions
from wake2vec.contract.order import InputFile, Order
from wake2vec.contract.rundir import RunDir
from wake2vec.contract.spec import JOB_SPEC
from wake2vec.show.geometry.matrix import chunks
from wake2vec.show.geometry.sources import Side, open_sources
from wake2vec.use.__main__ import use
from wake2vec.vocab.initial import initial_rows
from wake2vec.vocab.inject import inject

JOBS = Path(__file__).parents[5] / "jobs" / "tiny"
METHOD: dict[str, Any] = {"input": "mean_noise", "output": "spherical"}
WORDS = ["bababadal", "gracehoper", "prankquean", "funferal", "chaosmos", "collideorscape"]


def save_rows(run: RunDir, step: int, tensors: dict[str, torch.Tensor]) -> None:
    folder = run.checkpoint(step)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "trainable.safetensors")
    digest = FileDigest(size=0, sha256="", md5="")
    manifest = Manifest(
        job="p1", step=step, fingerprint="f", parent=None, probe_loss=None, files={"trainable.safetensors": digest}
    )
    write_json(folder / "manifest.json", manifest.to_json())


@pytest.fixture(params=["tied", "untied"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunDir:
    """A P1 run of six words on the tiny model: at step 20 as it started, at step 40 moved."""
    model, run = tmp_path / "model", RunDir(root=tmp_path / "p1")
    shutil.copytree(JOBS / "model", model)
    tensors = load_file(model / "model.safetensors")
    if request.param == "untied":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].flip(1).clone()
        save_file(tensors, model / "model.safetensors")
    tokenizer = AutoTokenizer.from_pretrained(model)
    run.vocab.mkdir(parents=True)
    id_map = inject(tokenizer, WORDS, directory=run.vocab).id_map
    id_map.save(run.id_map)
    body = "\n".join(WORDS).encode()
    sha256 = hashlib.sha256(body).hexdigest()
    table = {
        "name": "p1",
        "phase": "p1",
        "model": {"base": str(model)},
        "vocab": {"lexicon": "lexicon", "init": "mean_noise", "init_output": "spherical", "calibrate": False},
        "data": {"corpus": "corpus"},
        "train": {"steps": 40, "lr": 0.1, "seed": 3},
    }
    order = Order(
        job=JOB_SPEC.validate_python(table),
        fingerprint="f",
        attempt=1,
        inputs=[InputFile(role="lexicon", name="lexicon", sha256=sha256, size=len(body))],
        inputs_folder=str(tmp_path),
        gpu_lock=str(tmp_path / "lock"),
    )
    write_json(run.order, order.model_dump(mode="json"))
    kinds: dict[str, Any] = {"rows": ("input", "model.embed_tokens.weight")}
    if request.param == "untied":
        kinds = {"rows.input": kinds["rows"], "rows.output": ("output", "lm_head.weight")}
    start = {
        name: initial_rows(id_map, tensors[matrix], method=METHOD[part], seed=3, tokenizer=tokenizer, part=part)
        for name, (part, matrix) in kinds.items()
    }
    save_rows(run, 20, start)
    save_rows(run, 40, {name: rows + torch.linspace(0, 0.1, 6)[:, None] for name, rows in start.items()})
    return run


# what is drawn takes seconds; where an untied model's rows lie is told by the tests of its sources
TIED = pytest.mark.parametrize("run", ["tied", pytest.param("untied", marks=pytest.mark.sweep)], indirect=True)


@pytest.mark.parametrize("side", ["input", "output"])
def test_rows_base_and_start_are_those_of_the_run(run: RunDir, side: Side) -> None:
    published = load_file(run.root.parent / "model" / "model.safetensors")
    untied = side == "output" and "lm_head.weight" in published
    matrix = published["lm_head.weight" if untied else "model.embed_tokens.weight"]

    sources = open_sources(run, side=side, step=20)

    assert np.array_equal(sources.base.read(0, 2048), matrix.float().numpy())
    assert sources.start is not None
    assert np.array_equal(np.concatenate([rows for _, rows in chunks(sources.start, 4)]), sources.new.read(0, 6))
    assert np.array_equal(sources.start.take(np.array([5, 1])), sources.new.read(0, 6)[[5, 1]])


def test_output_rows_that_were_calibrated_have_no_start_to_compare_with(run: RunDir) -> None:
    table = read_json(run.order)
    assert isinstance(table, dict)
    table["job"]["vocab"]["calibrate"] = True
    write_json(run.order, table)

    of_input, of_output = open_sources(run), open_sources(run, side="output")

    assert of_input.start is not None
    is_untied = of_output.new != of_input.new
    assert (of_output.start is None) == is_untied
    assert ("calibrate" in of_output.no_start) == is_untied


@pytest.mark.parametrize("side", ["input", "output"])
def test_without_checkpoints_the_final_rows_are_measured(run: RunDir, side: Side) -> None:
    rows = run.checkpoint(40) / "trainable.safetensors"
    expected = open_sources(run, side=side).new.read(0, 6)
    run.final.mkdir()
    shutil.copy(rows, run.final / "embed_tokens.safetensors")
    shutil.rmtree(run.checkpoints)

    assert np.array_equal(open_sources(run, side=side).new.read(0, 6), expected)


def test_the_newest_checkpoint_is_measured_unless_another_is_asked_for(run: RunDir) -> None:
    assert open_sources(run).step == 40
    assert open_sources(run, step=20).step == 20
    with pytest.raises(InputError, match="there are: 40, 20"):
        open_sources(run, step=30)


@TIED
def test_the_command_writes_figures_plate_and_film(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert use(GeometryOptions(run=run.root)) == 0

    table = read_json(run.evaluation / "geometry.json")
    assert isinstance(table, dict)
    figures = {row["key"]: row["value"] for row in table["measures"]}
    assert figures["still"] == pytest.approx(1 / 6)
    assert figures["drift_l2"] == pytest.approx(0.1 * 64**0.5 / 2, rel=1e-4)
    assert [row["word"] for row in table["most_moved"]][-1] == WORDS[0]
    assert {row["word"] for row in table["neighbours"]} == set(WORDS)
    film = (run.evaluation / "geometry_film.html").read_text("utf-8")
    assert '"steps": [0, 20, 40]' in film
    assert len(capsys.readouterr().out.splitlines()) == 3


@TIED
def test_a_report_shows_the_geometry_that_was_measured(run: RunDir, tmp_path: Path) -> None:
    assert use(GeometryOptions(run=run.root)) == 0

    assert use(ReportOptions(out=tmp_path / "r.html", runs=[run.root])) == 0

    text = (tmp_path / "r.html").read_text("utf-8")
    assert "effective dimension" in text
    assert "data:image/png;base64," in text
    assert "collideorscape" in text


@pytest.mark.parametrize("missing", ["spec.json", "checkpoints", "vocab"])
def test_what_is_missing_is_told(run: RunDir, missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = run.root / missing
    shutil.rmtree(place) if place.is_dir() else place.unlink()

    assert use(GeometryOptions(run=run.root)) == 1

    assert missing in capsys.readouterr().err


def test_a_matrix_in_several_files_is_found(run: RunDir) -> None:
    model = run.root.parent / "model"
    tensors = load_file(model / "model.safetensors")
    before = open_sources(run).base.read(0, 5)
    places = {name: f"{'a' if 'embed' in name else 'b'}.safetensors" for name in tensors}
    for file in ("a.safetensors", "b.safetensors"):
        save_file({name: tensor for name, tensor in tensors.items() if places[name] == file}, model / file)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (model / "model.safetensors").unlink()

    assert np.array_equal(open_sources(run).base.read(0, 5), before)
