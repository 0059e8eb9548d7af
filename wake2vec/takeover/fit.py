"""Whether what an old run saved fits a job: ids to words, shapes to the model. Refused here, before anything trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wake2vec.contract.errors import InputError
from wake2vec.contract.tables import LoraTable
from wake2vec.takeover.find import OldAdapter, OldRows, OldWords
from wake2vec.vocab.idmap import IdMap

_ROWS_AT_ONCE = 4096
_SAME_LEXICON = "name the word list of that run, the same words in the same order"


@dataclass(frozen=True, kw_only=True)
class Base:
    """The published model of the job, by its outline alone."""

    name: str
    matrix_rows: int  # of the published matrix, padding included
    width: int
    tied: bool


@dataclass(frozen=True, kw_only=True)
class FittedRows:
    """The trained rows out of an old matrix, and the first row of the job that they stand for."""

    rows: Tensor  # [k, d], still on disk
    first_row: int


def fit_rows(old: OldRows, id_map: IdMap, base: Base) -> FittedRows:
    """Raises InputError naming file, key, both shapes and the remedy."""
    rows, place = old.tensor, f"{old.path}: {old.key}"
    shape = tuple(rows.shape)
    if shape[1] != base.width:
        problem = f"has shape {shape}, but {base.name} has rows of width {base.width}: [{id_map.n_ids}, {base.width}]"
        raise InputError(place, problem, "name a job file of the model that it was trained with")
    first = _first_id(old, id_map, base)
    if first is None or 0 < first < id_map.first_new_id or first + len(rows) != id_map.n_ids:
        where = "" if old.first_id is None else f" from id {old.first_id} on"
        problem = (
            f"has shape {shape}{where}, but this job has {id_map.n_ids} ids ({id_map.first_new_id} published, "
            f"{id_map.n_new} new, a published matrix of [{base.matrix_rows}, {base.width}])"
        )
        raise InputError(place, problem, _SAME_LEXICON)
    # a whole matrix was trained under a mask over all published rows, padding included
    trained = first or max(base.matrix_rows, id_map.first_new_id)
    found = rows[trained - first :]
    _require_numbers(found, place, trained)
    return FittedRows(rows=found, first_row=trained - id_map.first_new_id)


def _first_id(old: OldRows, id_map: IdMap, base: Base) -> int | None:
    """The id of the first row: what the file says, else the only reading that the number of rows allows."""
    if old.first_id is not None:
        return old.first_id
    readings = (0, max(base.matrix_rows, id_map.first_new_id), id_map.first_new_id)
    return next((first for first in readings if first + len(old.tensor) == id_map.n_ids), None)


def _require_numbers(rows: Tensor, place: str, first_id: int) -> None:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        finite = torch.isfinite(rows[start : start + _ROWS_AT_ONCE].float()).all(dim=1)
        if not bool(finite.all()):
            id_ = first_id + start + int((~finite).nonzero()[0])
            raise InputError(place, f"the row of id {id_} is not finite", "take an older checkpoint")


def fit_words(old: OldWords, id_map: IdMap) -> None:
    """Every new word has the id that it had. Raises InputError naming the first that has not, and both ids."""
    known = {word: id_ for word, id_ in old.ids.items() if id_ >= id_map.first_new_id}
    for entry in id_map.new:
        if known.get(entry.word) != entry.id:
            had = known.get(entry.word, "none")
            raise InputError(old.path, f"{entry.word!r} had id {had}, in this job it has {entry.id}", _SAME_LEXICON)
    if surplus := set(known) - set(id_map.words):
        word = min(surplus, key=lambda one: known[one])
        raise InputError(old.path, f"{word!r} has id {known[word]}, but is no new word of this job", _SAME_LEXICON)


def fit_adapter(old: OldAdapter, table: LoraTable, model: nn.Module) -> dict[str, Tensor]:
    """The halves, checked against the job's [lora] and the model's linear layers; raises InputError."""
    asked = {"r": table.r, "lora_alpha": table.alpha}
    for key, value in asked.items():
        if (was := old.config.get(key)) != value:
            name = key.removeprefix("lora_")
            problem = f"{key} was {was}, but the job file says lora.{name} = {value:g}"
            raise InputError(old.path.with_name("adapter_config.json"), problem, f"set lora.{name} = {was}")
    for key in ("use_rslora", "use_dora"):
        if old.config.get(key):
            raise InputError(old.path, f"was trained with {key}, which changes what its weights mean", "start anew")
    wanted = _shapes(model, table)
    for name in sorted(set(wanted) ^ set(old.halves)):
        where = (
            "the adapter has it, the job has not" if name in old.halves else "the job wants it, the adapter lacks it"
        )
        targets = sorted({one.rsplit(".lora_", 1)[0].rsplit(".", 1)[-1] for one in old.halves})
        raise InputError(old.path, f"{name}: {where}", f"set lora.targets = {targets}, and the model of that run")
    for name, shape in wanted.items():
        if tuple(old.halves[name].shape) != shape:
            problem = f"{name} has shape {tuple(old.halves[name].shape)}, the job wants {shape}"
            raise InputError(old.path, problem, "name a job file of the model that it was trained with")
        _require_numbers(old.halves[name], f"{old.path}: {name}", 0)
    return dict(old.halves)


def _shapes(model: nn.Module, table: LoraTable) -> Mapping[str, tuple[int, int]]:
    """Of every LoRA half that PEFT would make for these targets."""
    found: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        outer: Any = module
        if name.rsplit(".", 1)[-1] in table.targets and hasattr(outer, "in_features"):
            found[f"{name}.lora_A"] = (table.r, outer.in_features)
            found[f"{name}.lora_B"] = (outer.out_features, table.r)
    return found
