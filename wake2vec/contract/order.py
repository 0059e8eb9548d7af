"""What a trainer is asked for: a job, its inputs by content, where it starts from. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field

from wake2vec.contract.errors import InputError
from wake2vec.contract.files import at
from wake2vec.contract.spec import JobSpec, TrainingSpec
from wake2vec.contract.tables import FORMAT, Table


class InputFile(Table):
    """A text or word list, frozen by content at enqueue; or a model folder, known by its digest and left in place.

    `start` is what `import` made of an old run: rows and adapters that the job begins with.
    """

    role: Literal["corpus", "lexicon", "morphemes", "groups", "devices", "control", "model", "start"]
    name: str
    sha256: str
    size: int
    weights: str | None = Field(None, description="A model: sha256 over samples of its weights, no part of its digest.")


class Source(Table):
    """The checkpoint of another job that P2 or P3 starts from, copied into the run directory."""

    job: str
    step: int
    manifest_sha256: str
    folder: str = "source"
    rows: Source | None = Field(None, description="Where that checkpoint has no rows of its own: whose it stands on.")


class Order(Table):
    """spec.json: what the runner asks of one attempt."""

    format: Literal[1] = FORMAT
    job: JobSpec
    fingerprint: str
    attempt: int
    inputs: list[InputFile]
    inputs_folder: str = Field(description="Folder that holds the inputs, each named by its sha256.")
    source: Source | None = None
    gpu_lock: str = Field(description="Lock file that the trainer holds while it lives.")
    more_locks: list[str] = Field(default=[], description="Those of further cards: a rank of the trainer on each.")
    on_cards: bool = Field(False, description="Whether there are cards, which the trainer may then not do without.")
    stop_by: float | None = Field(None, description="Known end of the session, seconds since the epoch.")
    mean_session_minutes: float = Field(100.0, gt=0, description="How long sessions last here, for the cadence.")
    plan: dict[str, Any] = Field(default_factory=dict, description="Limits remembered for this card and job.")

    @property
    def training(self) -> TrainingSpec:
        """The job, if it is one of this program's own trainer. Raises InputError."""
        if isinstance(self.job, TrainingSpec):
            return self.job
        raise InputError(self.job.name, "trains no model of its own", "this is for jobs of phase p1 and p2")

    @property
    def ranks(self) -> int:
        """Processes that share each step, one a card; none without a sample."""
        most = self.job.train.batch if isinstance(self.job, TrainingSpec) else 1
        return min(1 + len(self.more_locks), most)


# What a job computes does not depend on these, so they may differ between attempts.
PLAN_AND_CADENCE = (
    "checkpoint",
    "runner",
    "track",
    "train.micro_batch",
    "train.layers",
    "train.cards",
    "train.spread",
    "train.reduction",
    "train.allow_shorter_context",
    "train.extended",
    "evaluate.expect",
    "evaluate.hold_unexpected",
    "evaluate.prompt",
    "evaluate.samples",
    "evaluate.samples_every_steps",
    "evaluate.hopes",
    "evaluate.controls",
    "name",
    "after",
)


# Keys that came after the first release, at the value that says what was done before there was a choice.
AS_BEFORE = {
    "vocab.forms": "one",
    "vocab.dtype": "fp32",
    "train.row_steps": "job",
    "data.shuffle": "hashes",
    "data.line_breaks": "keep",
    "data.hyphens": "keep",
    "lora.update": None,
    "morphemes": None,
    "devices": None,
    "geometry": None,
}


def fingerprint(job: JobSpec, inputs: list[InputFile]) -> str:
    """sha256 over everything that decides the result; two orders with the same one continue each other."""
    table = job.model_dump(mode="json")
    for dotted in (*PLAN_AND_CADENCE, *AS_BEFORE):
        *folders, key = dotted.split(".")
        part = at(table, folders)
        if isinstance(part, dict) and (dotted not in AS_BEFORE or part.get(key) == AS_BEFORE[dotted]):
            part.pop(key, None)
    table["inputs"] = sorted((item.role, item.sha256) for item in inputs if item.role != "control")
    # Paths are where things lay, not what they are: the hashes above stand for them.
    for key in ("corpus", "lexicon", "morphemes", "groups"):
        for name in ("data", "vocab", "morphemes", "devices"):
            if isinstance(part := table.get(name), dict):
                part.pop(key, None)
    if any(item.role == "model" for item in inputs):
        table["model"].pop("base")
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
