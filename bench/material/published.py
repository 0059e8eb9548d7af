"""Publish a model of a real shape with random weights: a folder as it comes from the hub, for what begins with one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from bench.material.random_models import STANDARD_DEVIATION, config_of
from wake2vec.contract.models.model_shapes import ModelShape

SHARD_BYTES = 2 << 30
VOCABULARY_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def publish(shape: ModelShape, folder: Path, device: torch.device, *, tokenizer: Path | None = None) -> Path:
    """Write config, shards of bf16 drawn on `device`, and a copy of a tokenizer. Norms are ones. Returns the folder."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(shape), dtype=torch.bfloat16)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    places: dict[str, str] = {}
    generator = torch.Generator(device=device).manual_seed(7)
    for number, names in enumerate(shards(model.state_dict())):
        file = f"model-{number:05}.safetensors"
        tensors = {name: drawn(name, model.state_dict()[name], device, generator) for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    for name in VOCABULARY_FILES:
        if tokenizer is not None and (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)
    return folder


def shards(tensors: dict[str, Any]) -> Iterator[list[str]]:
    """Names in order, at most SHARD_BYTES together where no single tensor is larger."""
    names: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        if names and size + tensor.nbytes > SHARD_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += tensor.nbytes
    if names:
        yield names


def drawn(name: str, like: Tensor, device: torch.device, generator: torch.Generator) -> Tensor:
    if "norm" in name:
        return torch.ones(like.shape, dtype=like.dtype)
    value = torch.empty(like.shape, dtype=like.dtype, device=device)
    return value.normal_(std=STANDARD_DEVIATION, generator=generator).cpu()
