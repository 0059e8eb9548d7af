"""Save a job: when it is time to, and everything that a resume needs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from wake2vec.contract.errors import InputError
from wake2vec.contract.plan import Plan
from wake2vec.model.device import card_name, copy_to_host
from wake2vec.model.placement import apply_plan
from wake2vec.phases.base import Prepared
from wake2vec.phases.inputs import JobInputs
from wake2vec.train import cadence
from wake2vec.train.checkpoint import Loaded, TrainingState, Writer, load_strictly
from wake2vec.train.evaluate import probe_loss
from wake2vec.train.optimizers import Optimizer
from wake2vec.train.ranks.team import Team
from wake2vec.train.stack import judge_probe, stack_of
from wake2vec.train.state import Progress


class Saver:
    """Checkpoints of one attempt; each names the one before it."""

    def __init__(self, material: JobInputs, prepared: Prepared, optimizer: Optimizer, team: Team) -> None:
        self._material, self._prepared, self._optimizer, self._team = material, prepared, optimizer, team
        self.writer = Writer(material.run)
        self._parent: str | None = None
        self._cadence = cadence.Cadence(
            every_steps=material.job.checkpoint.every_steps,
            max_loss_seconds=60 * material.job.checkpoint.max_loss_minutes,
            mean_session_seconds=60 * material.order.mean_session_minutes,
        )
        self._safe_at = time.monotonic()  # since when work is at risk
        self._copy_seconds = 0.0

    @property
    def saved_step(self) -> int | None:
        return self.writer.saved_step

    @property
    def saved_sha256(self) -> str | None:
        return self.writer.saved_sha256

    @property
    def cost_seconds(self) -> float:
        """What the last checkpoint took, from the copy to the last byte."""
        return self._copy_seconds + self.writer.write_seconds

    def restore(self, loaded: Loaded, plan: Plan) -> str:
        """Take over a verified checkpoint and prove by its probe loss that it is what it says; returns what to tell.

        The probe is computed under the plan that it was saved with, where it can be: another has other bits.
        """
        if loaded.state.get("vocab_sha256") != self._material.vocab_sha256:
            problem = f"the id map is not the one that {loaded.folder.name} was trained with"
            raise InputError(self._material.run.id_map, problem, "restore the vocab folder from the store")
        load_strictly(self._prepared.tensors, loaded.trainable, loaded.folder)
        self._optimizer.load_state_tensors(loaded.optimizer)
        self._team.give(self._prepared, self._optimizer)
        self._parent = self.writer.saved_sha256 = loaded.sha256
        self.writer.saved_step = loaded.state["step"]
        placed = apply_plan(self._prepared.model, self._prepared.rows, plan, self._prepared.device).plan
        then = Plan.from_dict(loaded.state["plan"])
        return judge_probe(
            loaded.folder,
            expected=loaded.manifest.probe_loss,
            found=probe_loss(self._prepared, self._material.windows),
            was=loaded.state.get("stack"),
            now=stack_of(self._prepared.device),
            same_plan=then is not None and then.layers == placed.layers,
        )

    def is_milestone(self, step: int) -> bool:
        return cadence.is_milestone(step, self._cadence, self._material.steps)

    def is_due(self, step: int) -> bool:
        if self.is_milestone(step):
            return True
        since = time.monotonic() - self._safe_at
        return not self.writer.is_busy and cadence.rolling_is_due(since, self._copy_seconds, self._cadence)

    def save(self, progress: Progress, carried: Mapping[str, Any]) -> None:
        """Copy the state to the host and have it written; returns before the file is complete."""
        started = time.monotonic()
        self.writer.wait()
        if self.writer.saved_step == progress.step:
            return
        self._parent = self.writer.saved_sha256 or self._parent
        self._team.gather(self._prepared, self._optimizer)
        source = self._material.order.source
        self.writer.submit(
            TrainingState(
                job=self._material.job.name,
                step=progress.step,
                fingerprint=self._material.order.fingerprint,
                parent=self._parent,
                probe_loss=probe_loss(self._prepared, self._material.windows),
                trainable=copy_to_host(self._prepared.tensors),
                optimizer=copy_to_host(self._optimizer.state_tensors()),
                state=progress.to_json()
                | {
                    "rows": list(progress.rows),
                    "vocab_sha256": self._material.vocab_sha256,
                    "source": source.model_dump() if source else None,
                    "steps": self._material.steps,
                    "card": card_name(self._prepared.device),
                    "stack": stack_of(self._prepared.device),
                    "model": self._material.identity.result().to_json(),
                    **self._team.regime,
                    **carried,
                },
            )
        )
        self._safe_at = time.monotonic()
        self._copy_seconds = self._safe_at - started

    def wait(self) -> None:
        """Return when the checkpoint is whole on the disk. Nothing is at risk then, however long what follows takes."""
        self.writer.wait()

    def nothing_was_at_risk(self) -> None:
        """No step was taken since the last checkpoint, whatever the clock says."""
        self._safe_at = time.monotonic()
