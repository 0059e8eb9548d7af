"""What a phase gives the loop: a model ready to train, what trains in it, and how the result is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from wake2vec.model.dropout import StepKey
from wake2vec.model.layers.stage import Stage
from wake2vec.model.new_rows import InstalledRows
from wake2vec.model.precision import Precision
from wake2vec.phases.inputs import JobInputs
from wake2vec.structure.auxiliary import Auxiliary


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A model that is ready to train."""

    model: Any  # a causal LM of transformers, its split rows installed
    rows: InstalledRows
    trainable: Mapping[str, nn.Parameter]  # what the optimizer moves
    tensors: Mapping[str, Tensor]  # what a checkpoint holds: all of the above, and new rows that are kept still
    context: StepKey  # which samples are in the model now, for keyed dropout
    device: torch.device
    precision: Precision  # in what numbers the body is held and computed
    structure: Auxiliary | None = None  # what P3 adds to each step
    stage: Stage | None = None  # where other cards hold some of the layers
    elsewhere: Mapping[str, nn.Parameter] = field(default_factory=dict)  # what trains there: copies, for checkpoints

    def hidden(self, inputs: Tensor) -> Tensor:
        """Last hidden states. [b, L] -> [b, L, d]"""
        output: Tensor = self.model.get_decoder()(input_ids=inputs, use_cache=False).last_hidden_state
        return output


class Phase(Protocol):
    """One way to train. To add one: a module that satisfies this, and a line in the table of phases."""

    def prepare(self, material: JobInputs) -> Prepared:
        """Load and dress the model. Raises InputError and ModelError before anything is trained."""

    def export(self, prepared: Prepared, material: JobInputs, folder: Path) -> None:
        """Write the result for others to use; tensors in safetensors files, nothing that needs this program."""
