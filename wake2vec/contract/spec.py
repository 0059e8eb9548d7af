"""What a job is: the checked, frozen form of a job file. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    model_serializer,
    model_validator,
)

from wake2vec.contract.tables import (
    NAME_PATTERN,
    CheckpointTable,
    DataTable,
    DevicesTable,
    EvaluateTable,
    GeometryTable,
    LoraTable,
    ModelTable,
    MorphemesTable,
    PositiveInt,
    RunnerTable,
    Table,
    TrackTable,
    TrainTable,
    VocabTable,
)

STRUCTURE = ("morphemes", "devices", "geometry")  # tables of P3 alone


class JobTable(Table):
    """One job file, complete and checked."""

    name: str = Field("", pattern=NAME_PATTERN, description="Default: the file's name.")
    phase: Literal["p1", "p2", "p3", "command"] = Field(
        description="p1: rows of new words. p2: LoRA on top of a p1 job. p3: both go on, with a structure to learn."
        " command: a training program of your own."
    )
    after: str | None = Field(
        None, pattern=NAME_PATTERN, description="P2: the P1 job whose rows it builds on. P3: the P2 job that goes on."
    )
    rows: Literal["best", "final"] | PositiveInt = Field("best", description="Which checkpoint of that job.")
    model: ModelTable | None = None
    vocab: VocabTable | None = None
    data: DataTable | None = None
    train: TrainTable | None = None
    lora: LoraTable | None = None
    morphemes: MorphemesTable | None = None
    devices: DevicesTable | None = None
    geometry: GeometryTable | None = None
    evaluate: EvaluateTable = EvaluateTable()
    checkpoint: CheckpointTable = CheckpointTable()
    runner: RunnerTable = RunnerTable()
    track: TrackTable = TrackTable()
    command: list[str] | None = Field(
        None, min_length=1, description="phase = command: what runs, with {resume_from}, {checkpoint_dir}, {steps}."
    )
    steps: PositiveInt | None = Field(None, description="phase = command: steps in all.")

    @model_validator(mode="after")
    def _parts_of_the_phase(self) -> JobTable:
        needed = {
            "p1": ("model", "vocab", "data", "train"),
            "p2": ("model", "data", "train") if self.vocab else ("model", "data", "train", "after"),
            "p3": ("model", "data", "train", "morphemes", *(() if self.vocab else ("after",))),
            "command": ("command", "steps"),
        }[self.phase]
        foreign = {
            "p1": ("lora", "command", "steps", "after", *STRUCTURE),
            "p2": ("command", "steps", *STRUCTURE, *(("vocab",) if self.after else ())),
            "p3": ("command", "steps"),  # one on an imported P2 gets the [vocab] of that
            "command": ("model", "vocab", "data", "train", "lora", *STRUCTURE),
        }[self.phase]
        missing = [key for key in needed if getattr(self, key) is None]
        surplus = [key for key in foreign if getattr(self, key) is not None]
        if missing or surplus:
            parts = [f"phase {self.phase} needs {', '.join(missing)}"] if missing else []
            parts += [f"phase {self.phase} has no {', '.join(surplus)}"] if surplus else []
            raise ValueError("; ".join(parts))
        return self

    @model_validator(mode="after")
    def _what_the_phase_trains(self) -> JobTable:
        may = {"p2": ("lora", "lora+rows", "all"), "p3": ("lora+rows", "rows")}.get(self.phase, ())
        if self.lora and "train" in self.lora.model_fields_set and self.lora.train not in may:
            raise ValueError(f"lora.train: expected {' or '.join(may)} in {self.phase}, got {self.lora.train}")
        if self.lora and self.train and (self.lora.train, self.train.spread) == ("all", "layers"):
            raise ValueError("train.spread: layers are dealt out where they stand still, not with lora.train = all")
        return self


class TrainingSpec(JobTable):
    """A job of this program's own trainer, whatever its phase."""

    phase: Literal["p1", "p2", "p3"]
    model: ModelTable
    data: DataTable
    train: TrainTable

    @property
    def only_seen(self) -> bool:
        """Whether a row rests until the text has met its word."""
        return self.lora is not None and self.lora.update == "seen"


class P1Spec(TrainingSpec):
    """Rows of new words."""

    phase: Literal["p1"]
    vocab: VocabTable

    @property
    def only_seen(self) -> bool:
        return self.vocab.update == "seen"


class P2Spec(TrainingSpec):
    """LoRA on the rows of a P1 job, or on those of an old run, which bring a [vocab] of their own."""

    phase: Literal["p2"]
    lora: LoraTable = LoraTable()

    @model_validator(mode="before")
    @classmethod
    def _none_is_not_given(cls, table: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in table.items() if (key, value) != ("lora", None)}

    @model_serializer(mode="wrap")
    def _not_given_is_none(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # logs and fingerprints tell a job without [lora] from one whose [lora] says what is the default anyway
        table: dict[str, Any] = write(self)
        return table if "lora" in self.model_fields_set else table | {"lora": None}


class P3Spec(TrainingSpec):
    """Rows and LoRA of a P2 job, or of an old run, trained on with a structure to learn."""

    phase: Literal["p3"]
    lora: LoraTable
    morphemes: MorphemesTable
    geometry: GeometryTable = GeometryTable()

    @model_validator(mode="before")
    @classmethod
    def _trains_rows(cls, table: dict[str, Any]) -> dict[str, Any]:
        lora = {"train": "lora+rows", **(table.get("lora") or {})}
        return {**table, "lora": lora, "geometry": table.get("geometry") or {}}

    @property
    def only_seen(self) -> bool:
        return self.lora.update != "all"


class CommandSpec(JobTable):
    """A training program of the user's own."""

    phase: Literal["command"]
    command: list[str] = Field(min_length=1)
    steps: PositiveInt


# A JobTable is what stands in a file, with every key that any phase has; a JobSpec has what its phase needs.
JobSpec = Annotated[P1Spec | P2Spec | P3Spec | CommandSpec, Field(discriminator="phase")]
JOB_SPEC: Final[TypeAdapter[P1Spec | P2Spec | P3Spec | CommandSpec]] = TypeAdapter(JobSpec)
