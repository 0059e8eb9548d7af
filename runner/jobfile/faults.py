"""Find everything wrong in a table of settings: each fault with its key, its value and what is allowed."""

from __future__ import annotations

import copy
import difflib
import math
import typing
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from runner.jobfile.wording import Path, Schema, allowed, got, node_at, remedy, sample, table_node, tables
from wake2vec.contract.errors import Fault
from wake2vec.contract.files import at

HUGGING_FACE = {  # the names that its Trainer, PEFT and datasets use
    "learning_rate": "train.lr", "max_steps": "train.steps", "num_train_epochs": "train.epochs",
    "per_device_train_batch_size": "train.micro_batch (the plan), and train.batch for the blocks of a whole step",
    "gradient_accumulation_steps": "no key: train.batch says how many blocks a step has, however they are taken",
    "train_batch_size": "train.batch", "batch_size": "train.batch", "lr_scheduler_type": "train.schedule",
    "optim": "train.optimizer", "max_grad_norm": "train.clip_norm", "save_steps": "checkpoint.every_steps",
    "eval_steps": "evaluate.every_steps", "logging_steps": "no key: every step is logged",
    "save_total_limit": "checkpoint.keep_milestones", "gradient_checkpointing": "train.layers",
    "early_stopping_patience": "evaluate.patience", "early_stopping_threshold": "evaluate.min_delta",
    "fp16": 'model.compute = "fp16"', "bf16": 'model.compute = "bf16"', "torch_dtype": "model.compute",
    "load_in_4bit": 'model.load = "nf4"', "load_in_8bit": 'model.load = "int8"',
    "model_name_or_path": "model.base", "model_name": "model.base", "model_id": "model.base",
    "max_seq_length": "data.seq_len", "max_length": "data.seq_len", "block_size": "data.seq_len",
    "train_file": "data.corpus", "dataset": "data.corpus", "validation_split_percentage": "data.held_out",
    "lora_alpha": "lora.alpha", "lora_dropout": "lora.dropout", "lora_r": "lora.r", "rank": "lora.r",
    "target_modules": "lora.targets", "output_dir": "no key: every job has its own folder, see `export --to`",
    "max_new_tokens": "no key: see `generate --tokens`", "resume_from_checkpoint": "no key: a job always goes on",
}  # fmt: skip
LARGEST_INTEGER = 10**12  # a checkpoint folder's name takes 12 digits


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Every fault of a table, in the order of the file, and the table with each fault replaced by what is allowed."""

    faults: list[Fault]
    healed: dict[str, Any]


def check(model: type[BaseModel], table: dict[str, Any]) -> Checked:
    """Find every fault that stands between `table` and `model`.

    A faulty value is replaced by a sample of what is allowed and the rest is checked again, so that the rules
    between keys speak also when a single key is wrong.
    """
    schema = model.model_json_schema()
    healed = copy.deepcopy(table)
    faults = [*_unknown_keys(healed, schema, schema, ()), *_unusable_numbers(healed, ())]
    for _ in range(3):
        try:
            model.model_validate(healed)
            break
        except ValidationError as error:
            found = list(_value_faults(error, healed, schema))
        new = [fault for fault in found if fault.key not in {known.key for known in faults}]
        faults += new
        if not all(_heal(model, healed, schema, fault.key, again=fault not in new) for fault in found):
            break
    return Checked(faults=faults, healed=healed)


def _unknown_keys(table: dict[str, Any], node: Schema, schema: Schema, place: Path) -> Iterator[Fault]:
    """Name each key that the schema does not know; one that is nearly right is read as what it was meant to be."""
    properties = node.get("properties", {})
    for key in list(table):
        if key in properties:
            inner = table_node(properties[key], schema)
            if inner is not None and isinstance(table[key], dict):
                yield from _unknown_keys(table[key], inner, schema, (*place, key))
            continue
        value = table.pop(key)
        known_elsewhere = key in HUGGING_FACE or _homes(key, schema, place)
        nearest = [] if known_elsewhere else difflib.get_close_matches(key.lower(), properties, n=1, cutoff=0.6)
        yield Fault(key=dotted((*place, key)), problem="unknown key" + _advice(key, nearest, properties, schema, place))
        if nearest and nearest[0] not in table:
            table[nearest[0]] = value
            inner = table_node(properties[nearest[0]], schema)
            if inner is not None and isinstance(value, dict):
                yield from _unknown_keys(value, inner, schema, (*place, nearest[0]))


def _advice(key: str, nearest: list[str], properties: Schema, schema: Schema, place: Path) -> str:
    if (ours := HUGGING_FACE.get(key)) is not None:
        return f"; here it is {ours}"
    if nearest:
        return f"; did you mean {nearest[0]}?"
    if homes := _homes(key, schema, place):
        return f"; it belongs in {' or '.join(f'[{home}]' for home in homes)}"
    if place and key in schema.get("properties", {}):
        return "; it belongs above the first [table]"
    return f"; allowed here: {', '.join(properties)}"


def _homes(key: str, schema: Schema, place: Path) -> list[str]:
    """The other tables that have a key of exactly this name."""
    return [name for name, node in tables(schema) if key in node.get("properties", {}) and (name,) != place]


def _unusable_numbers(value: Any, place: Path) -> Iterator[Fault]:
    """inf, nan and whole numbers beyond any use, each replaced by 1; and a NUL, which no file or program takes."""
    for key, item in list(value.items()) if isinstance(value, dict) else ():
        if any("\0" in part for part in (item if isinstance(item, list) else [item]) if isinstance(part, str)):
            yield Fault(key=dotted((*place, key)), problem="holds a NUL character; remove it")
            value[key] = "x" if isinstance(item, str) else ["x"]
            continue
        if isinstance(item, dict):
            yield from _unusable_numbers(item, (*place, key))
        elif isinstance(item, float) and not math.isfinite(item):
            yield Fault(key=dotted((*place, key)), problem=f"expected a finite number, got {item}")
            value[key] = 0.5
        elif isinstance(item, int) and abs(item) > LARGEST_INTEGER:
            yield Fault(key=dotted((*place, key)), problem=f"expected a number of at most 12 digits, got {item:.3e}")
            value[key] = 1


def _value_faults(error: ValidationError, table: dict[str, Any], schema: Schema) -> Iterator[Fault]:
    entries: dict[Path, Any] = {}
    for entry in error.errors(include_url=False):
        place = _place_of(entry["loc"], table, missing=entry["type"] == "missing")
        entries.setdefault(place, entry)  # each member of a union complains on its own
    for place, entry in entries.items():
        if not any(len(other) > len(place) and other[: len(place)] == place for other in entries if place):
            yield Fault(key=dotted(place), problem=_problem(entry, place, schema))


def _problem(entry: Any, place: Path, schema: Schema) -> str:
    if entry["type"] == "value_error":
        return str(entry["msg"]).removeprefix("Value error, ")
    node = node_at(schema, place)
    expected = allowed(node, schema)
    if entry["type"] == "missing":
        return f"missing; expected {expected}"
    return f"expected {expected}, got {got(entry['input'])}{remedy(node, entry['input'], schema)}"


def _place_of(location: tuple[int | str, ...], table: Any, *, missing: bool) -> Path:
    """The part of a pydantic location that stands in the file; what follows names a member of a union."""
    place: list[str] = []
    value = table
    for part in location:
        if isinstance(value, dict) and (part in value or missing):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            continue
        place.append(str(part))
    return tuple(place)


def _heal(model: type[BaseModel], table: dict[str, Any], schema: Schema, key: str, *, again: bool) -> bool:
    """Put a sample of what is allowed where a fault was; False where the rest cannot be judged without it.

    Where a sample was refused before (`again`), the default takes its place.
    """
    if key in ("", "phase"):
        return False
    *folders, last = key.split(".")
    node = node_at(schema, tuple(key.split(".")))
    part = at(table, folders)
    if isinstance(part, list) and node:
        part[int(last)] = sample(node, schema)
        return True
    if not isinstance(part, dict) or not node:
        return False
    table_schema = table_node(node, schema)
    if not folders and table_schema is not None:
        part[last] = _sample_table(_table_class(model, last), table_schema, schema)
    else:
        part[last] = node.get("default") if again else sample(node, schema)
    return True


def _sample_table(kind: type[BaseModel], node: Schema, schema: Schema) -> dict[str, Any]:
    """A table that keeps its own rules: the required keys, and one more where they want it."""
    required = sample(node, schema)
    for key, inner in node["properties"].items():
        table: dict[str, Any] = {key: sample(inner, schema), **required}
        with suppress(ValidationError):
            kind.model_validate(table)
            return table
    return dict(required)


def _table_class(model: type[BaseModel], key: str) -> type[BaseModel]:
    annotation = model.model_fields[key].annotation
    members = (*typing.get_args(annotation), annotation)
    return next(member for member in members if isinstance(member, type) and issubclass(member, BaseModel))


def dotted(place: Path) -> str:
    return ".".join(place)
