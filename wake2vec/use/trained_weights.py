"""Read what a run has trained, from a checkpoint or from its final folder, and the published weights it stands on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from wake2vec.contract.errors import InputError
from wake2vec.contract.files import read_json
from wake2vec.contract.manifest import TRAINABLE, require_step, saved_steps, step_of, verify_checkpoint
from wake2vec.contract.models.weight_files import ADAPTER_FILE, INPUT, OUTPUT, ROWS_FILE, is_called
from wake2vec.contract.order import Order
from wake2vec.contract.rundir import RunDir
from wake2vec.contract.tables import LoraTable
from wake2vec.model.forms import write_out
from wake2vec.model.published_files import PublishedFiles, origin_of
from wake2vec.phases.identity import began_with, digests_of, identify, require_same
from wake2vec.phases.imported import starting_rows
from wake2vec.phases.inputs import load_tokenizer
from wake2vec.use.merged_weights import Trained
from wake2vec.vocab.idmap import load as load_id_map

FINAL_FILES = (ROWS_FILE, ADAPTER_FILE, "weights.safetensors")


def read_trained(run: RunDir, order: Order, step: int | str) -> tuple[Trained, str]:
    """What was trained at `step` (a number, "best" or "final"), and the name of the place it was read from."""
    tensors, place = _tensors(run, step)
    if not any(name.split(".")[0] == "rows" for name in tensors):
        tensors |= _source(run, order)
    id_map = load_id_map(run.id_map)
    rows, lora, own = _sorted(write_out(tensors, id_map))
    if not rows:
        raise InputError(run.root / place, "holds no rows of new tokens", "restore the run directory from the store")
    table = order.training.lora or LoraTable()
    return Trained(
        first_new_id=id_map.first_new_id,
        input_rows=rows.get("rows", rows.get("rows.input", torch.empty(0))),
        output_rows=rows.get("rows.output"),
        lora=lora,
        scaling=table.alpha / table.r,
        own=own,
    ), place


def require_published(run: RunDir, order: Order) -> None:
    """Raises ModelChanged unless the published files are those that the job was trained on; hashes them once."""
    was, table = began_with(run, order), order.training.model
    if was is not None:
        now = identify(origin_of(table), load_tokenizer(table.base, table), digests_of(order))
        require_same(was, now, "put that model back and try again")


def _tensors(run: RunDir, step: int | str) -> tuple[dict[str, Tensor], str]:
    from safetensors.torch import load_file

    if step == "final" and run.final.is_dir():
        found: dict[str, Tensor] = {}
        for name in FINAL_FILES:
            if (run.final / name).is_file():
                found |= load_file(run.final / name)
        return found, run.final.name
    number = _number(run, step)
    return _checkpoint(run.checkpoint(number)), f"checkpoint-{number}"


def _source(run: RunDir, order: Order) -> dict[str, Tensor]:
    """The rows that a P2 stands on: of its P1, or of an old run."""
    if order.source is not None:
        return _checkpoint(run.checkpoint(order.source.step, order.source.folder))
    if (vocab := order.job.vocab) is None:
        return {}
    table = order.training.model
    files = PublishedFiles(origin_of(table))
    name = next(name for name in files.names() if is_called(name, INPUT))
    base = files.read(name, 0, files.shape(name)[0])
    tokenizer = load_tokenizer(table.base, table)
    return {"rows": starting_rows(order, vocab, load_id_map(run.id_map), base, tokenizer, "input")}


def _number(run: RunDir, step: int | str) -> int:
    steps = saved_steps(run)
    if not steps:
        raise InputError(run.checkpoints, "has no checkpoint", "wait for the first one, or restore it from the store")
    if step == "final":
        raise InputError(run.final, "is not there yet", f"wait for the end of the job, or ask for step {steps[0]}")
    if step == "best":
        pointer = read_json(run.best)
        found = pointer.get("step") if isinstance(pointer, dict) else step_of(run.best.resolve())
        if found not in steps:
            raise InputError(run.best, "does not point to a checkpoint that is here", f"ask for step {steps[0]}")
        return int(found)
    return require_step(run, step)


def _checkpoint(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    verify_checkpoint(folder)
    return load_file(folder / TRAINABLE)


def _sorted(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """Rows, adapters by module, and published weights that were trained as wholes."""
    rows: dict[str, Tensor] = {}
    halves: dict[str, dict[str, Tensor]] = {}
    own: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = name.removeprefix("base_model.model.").replace(".default.", ".").replace(".base_layer.", ".")
        if name.split(".")[0] == "rows":
            rows[name] = tensor
        elif ".lora_" in plain:
            module, half = plain.removesuffix(".weight").rsplit(".lora_", 1)
            halves.setdefault(module, {})[half] = tensor
        else:
            own[_published_name(plain)] = tensor
    return rows, {module: (pair["A"], pair["B"]) for module, pair in halves.items()}, own


def _published_name(name: str) -> str:
    """A split matrix keeps its base rows one level deeper."""
    outer = name.removesuffix(".base.weight") + ".weight"
    return outer if name.endswith(".base.weight") and is_called(outer, (*INPUT, *OUTPUT)) else name
