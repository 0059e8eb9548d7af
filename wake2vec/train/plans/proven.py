"""Which layer paths may train a job: each is proved when it is first asked for, and what was found is remembered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from wake2vec.contract.files import read_json, write_json
from wake2vec.contract.plan import WRITTEN_OUT, LayerPath
from wake2vec.contract.versions import versions
from wake2vec.model.device import card_name, free_memory, is_out_of_memory
from wake2vec.model.dropout import drop_only_keyed
from wake2vec.model.layers.paths import use_layers
from wake2vec.model.layers.proof import TOKENS, Proof, Reference, prove, refer
from wake2vec.phases.base import Prepared
from wake2vec.phases.inputs import JobInputs
from wake2vec.train.ranks.team import Alone, Prove, Team


class Proven:
    """`holds` is asked by whatever chooses a plan. What the library itself computes needs no proof."""

    def __init__(
        self, material: JobInputs, prepared: Prepared, say: Callable[[str], None], team: Team | None = None
    ) -> None:
        self._material, self._prepared, self._say = material, prepared, say
        self._team, self._file = team or Alone(), material.run.proofs
        self._known: dict[LayerPath, bool] = {}
        self._reference: Reference | None = None
        self._said: list[str] = []

    def holds(self, path: LayerPath) -> bool:
        if path not in WRITTEN_OUT:
            return True
        if path == "offload" and self._prepared.stage is not None:
            return False  # the host keeps one micro-batch, and several are under way
        if path not in self._known:
            refusal = next(filter(None, self._team.do(Prove(path=path), lambda: self.refusal(path))), "")
            self._known[path] = not refusal
            if refusal and refusal not in self._said:  # what the model itself is rules out all paths alike
                self._said.append(refusal)
                self._say(refusal)
        return self._known[path]

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why paths were refused so far: which layer differs, and by how much."""
        return tuple(self._said)

    def rest(self) -> None:
        """Give back the memory of the library's own pass; another proof would run it anew."""
        self._reference = None

    def refusal(self, path: LayerPath) -> str:
        """Why a path may not train the layers that lie here; empty where it may."""
        used = use_layers(self._prepared.model, path)
        if used.path != path:
            return used.note
        proof = self._remembered(path) or self._prove(path)
        if proof is None:
            return f"{path}: no memory is left to prove it: the library's layers are used"
        return "" if proof.holds else f"{proof}: not used"

    def _prove(self, path: LayerPath) -> Proof | None:
        """None where memory is too short for it, which is not remembered."""
        prepared, model = self._prepared, self._prepared.model
        drop_only_keyed(model)
        inputs, _ = self._material.blocks.batch([0])
        ids = torch.from_numpy(inputs[:, :TOKENS]).to(prepared.device)
        if (stage := prepared.stage) is not None and stage.arrived is not None:  # what stands for a block here
            stage.arrived = stage.arrived[:1, :TOKENS].detach()
            ids = ids[:, : stage.arrived.shape[1]]
        prepared.context.set(step=0, sample_ids=torch.zeros(1, dtype=torch.int64, device=prepared.device))
        proof = None
        for library in ("autograd", "recompute"):
            try:
                with nullcontext() if stage is None else stage.alone():
                    self._reference = self._reference or refer(model, ids, prepared.precision.dtype, library)
                    proof = prove(model, path, self._reference)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # past the except block: its traceback held the tensors
            self.rest()
            free_memory([])
        if proof is not None:
            self._remember(proof)
        return proof

    def _remembered(self, path: LayerPath) -> Proof | None:
        table = _table(self._file).get(self._key(path))
        return Proof(**table) if isinstance(table, dict) and set(table) == {*Proof.__dataclass_fields__} else None

    def _remember(self, proof: Proof) -> None:
        if self._prepared.stage is not None and not self._prepared.stage.is_first:
            return  # rank 0 alone writes
        write_json(self._file, {**_table(self._file), self._key(proof.path): asdict(proof)})

    def _key(self, path: LayerPath) -> str:
        """Of all that a proof hangs on: model and job, path, precision, card and versions."""
        prepared, order = self._prepared, self._material.order
        config = json.dumps(prepared.model.config.to_dict(), sort_keys=True, default=str)
        stream = str(prepared.rows.embedding.out_dtype)
        what = [order.fingerprint, config, path, asdict(prepared.precision), stream, card_name(prepared.device)]
        what += [] if prepared.stage is None else [str(prepared.stage.layers)]
        return hashlib.sha256(json.dumps([*what, versions()], sort_keys=True).encode()).hexdigest()


def _table(file: Path) -> dict[str, Any]:
    table = read_json(file)
    return table if isinstance(table, dict) else {}
