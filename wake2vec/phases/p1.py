"""P1: train only the rows of the new tokens; the body and the base rows stand still."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from wake2vec.contract.spec import P1Spec
from wake2vec.model.device import copy_to_host
from wake2vec.model.dropout import StepKey
from wake2vec.model.new_rows import install_rows, is_tied, resolve_mode
from wake2vec.phases.base import Prepared
from wake2vec.phases.imported import starting_rows
from wake2vec.phases.inputs import JobInputs
from wake2vec.phases.parity import as_published, check_parity, freeze, load, matrices
from wake2vec.vocab.calibrate import calibrate_head

ROWS_FILE = "embed_tokens.safetensors"


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
    installed = install_rows(
        model,
        first_new_id=id_map.first_new_id,
        mode=mode,
        input_rows=starting_rows(order, vocab, id_map, weight_in, tokenizer, "input"),
        output_rows=None if mode == "shared" else starting_rows(order, vocab, id_map, weight_out, tokenizer, "output"),
    )
    if vocab.calibrate and mode == "separate":
        # shared rows are read as inputs too, and an offset there changes what the words mean
        calibrate_head(model, installed.head, material.blocks, first_new_id=id_map.first_new_id)
    check_parity(model, material, before)
    return Prepared(
        model=model,
        rows=installed,
        trainable=installed.trainable(),
        tensors=installed.everything(),
        context=StepKey(),
        device=device,
        precision=precision,
    )


def export(prepared: Prepared, material: JobInputs, folder: Path) -> None:
    """The new rows in fp32, the tokenizer and the id map."""
    save_file(copy_to_host(prepared.tensors), folder / ROWS_FILE)
    copy_tokenizer(material, folder)


def copy_tokenizer(material: JobInputs, folder: Path) -> None:
    """The files that the job read: what a library writes of them anew may lack how they are to be loaded."""
    shutil.copytree(material.run.vocab, folder, dirs_exist_ok=True)


def load_rows(tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """Input rows, and output rows where they are not the same, from a checkpoint of this phase."""
    if "rows" in tensors:
        return tensors["rows"], None
    return tensors["rows.input"], tensors["rows.output"]
