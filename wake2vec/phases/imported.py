"""What a job begins with: rows made from published ones, or rows and adapters that `import` took over."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from wake2vec.contract.errors import InputError
from wake2vec.contract.models.weight_files import START_ABOUT, read_metadata
from wake2vec.contract.order import Order
from wake2vec.contract.tables import VocabTable
from wake2vec.phases.inputs import input_paths
from wake2vec.vocab.idmap import IdMap
from wake2vec.vocab.initial import Part, initial_rows

FORMAT = 1
_ROWS, _ADAPTER = "rows", "adapter."


@dataclass(frozen=True, kw_only=True)
class ImportedStart:
    """The frozen input of role `start`; tensors stay in the file until they are asked for."""

    path: Path
    first_row: int  # of the job's rows, that the first taken one is; all after it are taken
    told: tuple[str, ...]  # what was taken and what the old run lacks, in sentences

    def put_rows(self, rows: Tensor) -> Tensor:
        """The job's own starting rows with the old ones in their places. [n_new, d] fp32

        Raises InputError when they do not fit, which `import` has checked for the model as it was then.
        """
        found = self.rows()
        if found is None:
            return rows
        if (self.first_row + len(found), found.shape[1]) != tuple(rows.shape):
            problem = f"its rows {tuple(found.shape)} from row {self.first_row} on do not fit {tuple(rows.shape)}"
            raise InputError(self.path, problem, "import the old run again: the model or the word list has changed")
        whole = rows.clone()
        whole[self.first_row :] = found
        return whole

    def rows(self) -> Tensor | None:
        """In the numbers that they were saved in."""
        return load_file(self.path).get(_ROWS)

    def adapter(self) -> dict[str, Tensor]:
        """LoRA halves by module: `model.layers.0.self_attn.q_proj.lora_A`."""
        found = load_file(self.path)
        return {name.removeprefix(_ADAPTER): found[name] for name in found if name.startswith(_ADAPTER)}


def taken_over(order: Order) -> ImportedStart | None:
    """What this job was imported with. Raises InputError when its file has gone or is not one."""
    path = next((Path(order.inputs_folder) / item.sha256 for item in order.inputs if item.role == "start"), None)
    if path is None:
        return None
    try:
        about = json.loads(read_metadata(path)[START_ABOUT])
        return ImportedStart(path=path, first_row=int(about["first_row"]), told=tuple(about["told"]))
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(path, f"is not what import wrote: {error}", "import the old run again") from error


def write_taken(
    path: Path, *, rows: Tensor | None, first_row: int, adapter: Mapping[str, Tensor], told: Sequence[str]
) -> None:
    """The same content gives the same bytes, so that importing twice is seen as the same work."""
    tensors = {f"{_ADAPTER}{name}": adapter[name].contiguous() for name in sorted(adapter)}
    if rows is not None:
        tensors[_ROWS] = rows.contiguous()
    about: dict[str, Any] = {"format": FORMAT, "first_row": first_row, "told": list(told)}
    save_file(tensors, path, metadata={START_ABOUT: json.dumps(about, ensure_ascii=False)})


def overwrite(places: Mapping[str, Tensor], adapter: Mapping[str, Tensor], path: Path) -> None:
    """Fill LoRA parameters, named as PEFT names them in a model, from old halves. Raises InputError unless all fit."""
    named = {name.replace(".default.weight", ""): tensor for name, tensor in places.items()}
    if odd := sorted(set(named) ^ set(adapter)):
        problem = f"{odd[0]} is in {'the adapter' if odd[0] in adapter else 'the job'} alone"
        raise InputError(path, problem, "import the old run again: lora.targets has changed")
    with torch.no_grad():
        for name, tensor in named.items():
            tensor.copy_(adapter[name])


def starting_rows(order: Order, vocab: VocabTable, id_map: IdMap, base: Tensor, tokenizer: Any, part: Part) -> Tensor:
    """Of one side, as [vocab] says, with the old rows in their places. `tokenizer` is the published one. [n_new, d]

    Old rows go to the input side alone: where a model has an output matrix of its own, the old runs had replaced it.
    """
    morphemes = input_paths(order, "morphemes")
    rows = initial_rows(
        id_map,
        base,
        method=vocab.init if part == "input" else vocab.output_init,
        seed=order.training.train.seed,
        tokenizer=tokenizer,
        part=part,
        scale=vocab.init_scale,
        morphemes=morphemes[0] if morphemes else None,
    )
    taken = taken_over(order)
    return rows if taken is None or part == "output" else taken.put_rows(rows)
