"""P1: train only the rows of the new tokens; the body and the base rows stand still."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from wake2vec.contract.models.weight_files import ROWS_FILE
from wake2vec.contract.spec import P1Spec
from wake2vec.model.device import copy_to_host
from wake2vec.model.dropout import StepKey
from wake2vec.model.forms import FORMS, write_out
from wake2vec.model.new_rows import SharedForms, install_rows, is_tied, resolve_mode
from wake2vec.model.precision import DTYPES
from wake2vec.phases.base import Prepared
from wake2vec.phases.imported import starting_rows
from wake2vec.phases.inputs import JobInputs
from wake2vec.phases.parity import as_published, check_parity, freeze, load, matrices
from wake2vec.vocab.calibrate import calibrate_head
from wake2vec.vocab.idmap import IdMap
from wake2vec.vocab.offsets import form_offsets, words_with


def prepare(material: JobInputs) -> Prepared:
    job = material.job
    assert isinstance(job, P1Spec), "the table of phases"
    vocab = job.vocab
    model, device, precision = load(material)
    freeze(model)
    mode = resolve_mode(vocab.rows, tied=is_tied(model))
    before = as_published(model, material)
    weight_in, weight_out = matrices(model)
    order, id_map, tokenizer = material.order, material.id_map, material.base_tokenizer
    rows = {"rows.input": starting_rows(order, vocab, id_map, weight_in, tokenizer, "input")}
    if mode != "shared":
        rows["rows.output"] = starting_rows(order, vocab, id_map, weight_out, tokenizer, "output")
    if id_map.forms:
        for name, weight in zip(tuple(rows), (weight_in, weight_out), strict=False):
            rows[name + FORMS] = offsets_of(weight, id_map, tokenizer)
    if not id_map.shared:
        rows = write_out(rows, id_map)
    installed = install_rows(
        model,
        first_new_id=id_map.first_new_id,
        mode=mode,
        input_rows=rows["rows.input"],
        output_rows=rows.get("rows.output"),
        shared=SharedForms(
            words=words_with(id_map),
            input_offsets=rows[f"rows.input{FORMS}"],
            output_offsets=rows.get(f"rows.output{FORMS}"),
        )
        if id_map.shared
        else None,
    )
    if vocab.calibrate and mode == "separate":
        # shared rows are read as inputs too, and an offset there changes what the words mean
        calibrate_head(model, installed.head, material.blocks, first_new_id=id_map.first_new_id)
    installed.hold(DTYPES[vocab.dtype], seed=job.train.seed)
    check_parity(model, material, before)
    return Prepared(
        model=model,
        rows=installed,
        trainable=installed.trainable(),
        tensors=installed.everything(),
        context=StepKey(),
        device=device,
        precision=precision,
        stage=material.stage,
    )


def offsets_of(weight: Tensor, id_map: IdMap, tokenizer: Any) -> Tensor:
    """Where the offsets of forms begin on one side, `[n_forms, d]`; says which have nothing to begin with."""
    found, pairs = form_offsets(weight[: id_map.first_new_id], tokenizer.get_vocab(), id_map.scheme)
    alone = [str(form) for form in {entry.form: None for entry in id_map.forms} if not pairs[form]]
    if alone:
        print(f"no two published tokens differ as a word and its form {', '.join(alone)}: they begin as the word")
    return found


def export(prepared: Prepared, material: JobInputs, folder: Path) -> None:
    """The new rows in the numbers that they trained in, one for each id, the tokenizer and the id map."""
    save_file(write_out(copy_to_host(prepared.tensors), material.id_map), folder / ROWS_FILE)
    copy_tokenizer(material, folder)


def copy_tokenizer(material: JobInputs, folder: Path) -> None:
    """The files that the job read: what a library writes of them anew may lack how they are to be loaded."""
    shutil.copytree(material.run.vocab, folder, dirs_exist_ok=True)


def load_rows(tensors: dict[str, Tensor], id_map: IdMap) -> tuple[Tensor, Tensor | None]:
    """Input rows, and output rows where they are not the same, from a checkpoint of this phase; one for each id."""
    tensors = write_out(tensors, id_map)
    if "rows" in tensors:
        return tensors["rows"], None
    return tensors["rows.input"], tensors["rows.output"]
