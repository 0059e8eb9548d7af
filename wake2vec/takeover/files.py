"""Open what the original scripts saved: tensors and numbers alone, none of the code that a pickle can carry."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wake2vec.contract.errors import InputError, first_line

_COPY_AGAIN = "copy it again from where it was saved"


def read_pt(path: Path) -> Any:
    """A file of torch.save, left on disk until a part is read. Raises InputError naming what is wrong with it."""
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)  # saved before torch 1.6
    except pickle.UnpicklingError as error:
        if (named := re.search(r"GLOBAL ([\w.]+)", str(error))) is not None:
            problem = f"asks to run {named[1]}, and nothing in such a file is ever run here"
            remedy = "if it is yours, load it where you trust it and save its tensor alone: torch.save(rows, FILE)"
            raise InputError(path, problem, remedy) from None
        raise InputError(path, "is torn, or no file of torch.save", _COPY_AGAIN) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        problem = f"is torn, or no file of torch.save ({first_line(error)[:200]})"
        raise InputError(path, problem, _COPY_AGAIN) from None


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Raises InputError when the file is torn."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise InputError(path, f"is torn, or no safetensors file ({first_line(error)[:200]})", _COPY_AGAIN) from None


def read_table(path: Path) -> dict[str, Any]:
    """A JSON object. Raises InputError for anything else."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(path, f"is not whole JSON ({first_line(error)[:200]})", _COPY_AGAIN) from None
    if not isinstance(table, dict):
        raise InputError(path, "is no JSON object", _COPY_AGAIN)
    return table


def state_dict(path: Path) -> Mapping[str, Tensor]:
    """Named tensors of an adapter, in either of the two formats that PEFT writes."""
    value = read_safetensors(path) if path.suffix == ".safetensors" else read_pt(path)
    if isinstance(value, Mapping) and all(isinstance(tensor, Tensor) for tensor in value.values()):
        return {str(name): tensor.detach() for name, tensor in value.items()}
    raise InputError(path, "holds no named tensors", "give the folder that PEFT's save_pretrained wrote")
