"""The tables of a job file: each key with its type, its default and what it is for. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from wake2vec.contract.expectation import parse_expectation, parse_stop_rule

FORMAT: Final = 1
LONGEST_NAME = 80
NAME_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}$"

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]


class Table(BaseModel):
    """A table of a job file: no unknown keys, no silent conversions, no changes afterwards."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class ModelTable(Table):
    """[model]: the published model that everything is trained on top of."""

    base: str = Field(min_length=1, description="Hugging Face id, or a folder (relative to the job file).")
    revision: str = Field("main", description="Revision on the hub; pin a commit to be safe from changes.")
    load: Literal["auto", "nf4", "int8", "fp16", "bf16", "fp32"] = Field(
        "auto", description="How the frozen body is held. auto: NF4 on a GPU, fp32 on a CPU."
    )
    compute: Literal["auto", "fp16", "bf16", "fp32"] = Field(
        "auto", description="Arithmetic of the body. auto: bf16 where the hardware has it, else fp16; fp32 on a CPU."
    )
    trust_remote_code: bool = Field(False, description="Run Python code that the model's repository brings.")


class VocabTable(Table):
    """[vocab]: the words that are added, and how their rows start (P1)."""

    lexicon: str = Field(min_length=1, description="Word list, UTF-8, one word a line.")
    match: Literal["word", "anywhere"] = Field(
        "word", description="word: only whole words become a new token. anywhere: as the original scripts, also inside."
    )
    case: Literal["as-is", "also-capitalised"] = Field("as-is", description="Also add each word with a capital letter.")
    forms: Literal["one", "shared", "separate"] = Field(
        "one",
        description="Ids for a word where it stands bare or in capitals too. one: none. shared: one row behind them, "
        "and an offset for each form. separate: a row for each.",
    )
    init: Literal["mean", "mean_noise", "spherical", "subwords", "compositional"] = Field(
        "subwords", description="First value of a new row."
    )
    init_output: Literal["mean", "mean_noise", "spherical", "subwords", "first_piece", "compositional"] | None = Field(
        None,
        description="First value of an output row of its own. Not given: first_piece beside subwords, else as init.",
    )
    calibrate: bool = Field(
        True, description="Shift output rows of their own so that each word starts at its share of the training text."
    )
    init_scale: float = Field(1.0, gt=0, description="Factor on the radius (spherical) or the noise (mean_noise).")
    morphemes: str | None = Field(None, description="CSV of prefixes and suffixes for init = compositional.")
    rows: Literal["auto", "shared", "separate", "input"] = Field(
        "auto", description="Which rows train. auto: one set where the model ties its matrices, two where it does not."
    )
    dtype: Literal["fp32", "fp16", "bf16"] = Field(
        "fp32",
        description="How the rows of words are held: 16 bits halve them and what is saved of them. A step is computed "
        "in fp32 and rounded, by a draw that is right on average (bf16) or to the nearest (fp16: small steps vanish).",
    )
    update: Literal["all", "seen"] = Field(
        "seen",
        description="seen: a row moves from the first step that meets its word. all: every row from step 1, as once.",
    )

    @model_validator(mode="after")
    def _forms_of_whole_words(self) -> VocabTable:
        if self.forms != "one" and self.match == "anywhere":
            raise ValueError('forms are of whole words: match = "anywhere" has one')
        return self

    @property
    def row_bytes(self) -> int:
        """Of one number of a row."""
        return 4 if self.dtype == "fp32" else 2

    @property
    def output_init(self) -> Literal["mean", "mean_noise", "spherical", "subwords", "first_piece", "compositional"]:
        """How output rows of their own start: what is about to write a word predicts its first piece."""
        return self.init_output or ("first_piece" if self.init == "subwords" else self.init)


class DataTable(Table):
    """[data]: the text, how it is cut, and what is held out of it."""

    corpus: str | list[str] = Field(description="Text file or files, UTF-8.")
    seq_len: int = Field(256, ge=8, le=131072, description="Target tokens in a block.")
    held_out: Annotated[float, Field(gt=0.0, lt=0.9)] = Field(0.1, description="Share of the text never trained on.")
    split: Literal["text", "blocks"] = Field(
        "text", description="text: held out as spans of text. blocks: the original 90/10 split of token blocks."
    )
    shuffle: Literal["scikit-learn", "hashes"] = Field(
        "hashes",
        description="Of split = blocks. scikit-learn: the original's (any new job). hashes: the first release's.",
    )
    line_breaks: Literal["keep", "join", "auto"] = Field(
        "keep",
        description="join: lines of print become paragraphs. auto: where the text is in such lines. keep: as they are.",
    )
    hyphens: Literal["keep", "mend"] = Field(
        "keep", description="Of words broken at the end of joined lines. mend: taken away before a small letter."
    )
    lexicon_in_corpus: bool = Field(False, description="Append the word list to the training text, as once.")
    seed: int = Field(42, ge=0, description="Chooses the held-out text and the order of the blocks.")

    @property
    def corpora(self) -> list[str]:
        return [self.corpus] if isinstance(self.corpus, str) else list(self.corpus)


class Extension(Table):
    """Written by `extend`: from step `from_step` on the schedule runs to `steps`; before it nothing changes."""

    from_step: int = Field(ge=0)
    steps: PositiveInt


class TrainTable(Table):
    """[train]: what a step computes."""

    steps: PositiveInt | None = Field(None, description="Optimizer steps in all. Give steps or epochs.")
    epochs: float | None = Field(None, gt=0, description="Passes over the training blocks. Give steps or epochs.")
    batch: PositiveInt = Field(16, description="Effective batch: blocks per step, whatever the micro-batch.")
    optimizer: Literal["adafactor", "adamw"] = Field(
        "adafactor", description="adafactor: factored second moments, little memory. adamw: full moments."
    )
    lr: float = Field(gt=0, le=10, description="Peak learning rate.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="Learning rate after the warm-up, over the whole job, whatever the sessions do."
    )
    warmup_ratio: Fraction = Field(0.0, description="Warm-up as a share of the steps.")
    warmup_steps: int | None = Field(None, ge=0, description="Warm-up in steps; overrides warmup_ratio.")
    weight_decay: float = Field(0.0, ge=0, description="Decay of what trains; frozen rows never move.")
    row_steps: Literal["job", "own"] = Field(
        "job",
        description="own: a new row counts steps from the first that meets its word, and does not decay before. "
        "job: all rows count with the job.",
    )
    clip_norm: float = Field(1.0, gt=0, description="Limit of the global gradient norm.")
    seed: int = Field(42, ge=0, description="Initial rows, LoRA and dropout.")
    micro_batch: PositiveInt | Literal["auto"] = Field(
        "auto", description="Plan: blocks per forward pass. Never changes the result."
    )
    layers: Literal["auto", "autograd", "recompute", "checkpoint", "offload", "lean"] = Field(
        "auto", description="Plan: what is kept for the backward pass. Never changes the result."
    )
    cards: PositiveInt | Literal["auto"] = Field(
        1, description="Plan: equal cards of the machine that share each step, or as many as there are."
    )
    spread: Literal["auto", "samples", "layers"] = Field(
        "auto",
        description="Plan: what several cards are dealt. samples: each holds the model. layers: each holds some of it, "
        "and the job waits for a second card. auto: layers where one card cannot hold the model.",
    )
    reduction: Literal["fast", "fixed"] = Field(
        "fast", description="Plan: fixed adds up samples in one order, for the same bits on any number of cards."
    )
    allow_shorter_context: bool = Field(
        True, description="Last resort against out-of-memory: split blocks in two. Recorded and shown when it happens."
    )

    extended: list[Extension] = Field(default_factory=list, description="Written by the command `extend`.")

    @model_validator(mode="after")
    def _one_length(self) -> TrainTable:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give steps or epochs, one of the two")
        if self.cards != "auto" and self.cards > self.batch and self.spread != "layers":
            raise ValueError(
                f'cards = {self.cards} cannot share the {self.batch} blocks of a step, only layers: spread = "layers"'
            )
        return self


class LoraTable(Table):
    """[lora]: the adapters of P2, and what else trains beside them."""

    r: PositiveInt = Field(8, description="Rank of each adapter.")
    alpha: float = Field(16, gt=0, description="Adapters are scaled by alpha / r.")
    dropout: Fraction = Field(0.1, description="Share of an adapter's inputs that a step drops.")
    targets: list[str] = Field(
        default=["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj"],
        min_length=1,
        description="Linear layers that get an adapter, by the end of their names.",
    )
    train: Literal["lora", "lora+rows", "rows", "all"] = Field(
        "lora",
        description="lora: adapters alone. lora+rows: the new rows too. all: every weight (unquantised model)."
        " P3: lora+rows (its default) or rows.",
    )
    update: Literal["seen", "all"] | None = Field(
        None, description="Rows that train, as vocab.update has it. Not given: all in P2, seen in P3."
    )


class MorphemesTable(Table):
    """[morphemes]: P3: derived words are to differ from their bases in one direction for each affix."""

    groups: str = Field(min_length=1, description="JSONL of morphemes, each with examples and their bases.")
    weight: float = Field(1.0, ge=0, description="Of the loss, beside the text's. 0 here and in devices: a control.")
    loss: Literal["cosine", "offset", "contrast"] = Field(
        "cosine", description="cosine: direction. offset: direction and length. contrast: nearer than other words."
    )
    pairs: Literal["whole", "any"] = Field(
        "whole", description="whole: words with a row of their own, bases of one token that exist. any: as once."
    )
    group_weight: Literal["pair", "sqrt", "group"] = Field(
        "sqrt", description="What counts alike: each pair, each group, or halfway between."
    )
    min_pairs: int = Field(5, ge=2, description="Groups with fewer pairs to train are left out.")
    held_out: Fraction = Field(0.2, description="Share of the bases whose pairs are only measured.")
    shuffle: bool = Field(False, description="Deal the groups out by the seed: structure without meaning, a null run.")
    exclude: list[str] = Field(default_factory=list, description="Groups to leave out, by name.")
    nulls: int = Field(200, ge=0, le=10_000, description="Permutations behind each p at an evaluation; 0 for none.")


class DevicesTable(Table):
    """[devices]: P3: words of one literary device are to lie nearer to each other than to those of another."""

    groups: str = Field(min_length=1, description="JSONL of devices, each with examples.")
    weight: float = Field(0.0, ge=0, description="Of the triplet loss, beside the text's. 0: measured alone.")
    held_out: float = Field(0.0, ge=0, lt=1, description="Share of the words, by their text, that no triplet shows.")
    triplets: PositiveInt = Field(1024, description="Drawn once a step.")
    margin: float = Field(0.2, gt=0, description="By which a word of the device must be nearer, in cosine.")
    balance: bool = Field(True, description="Draw devices equally often, whatever their size.")


class GeometryTable(Table):
    """[geometry]: P3: where the structure is trained, and what holds the rows meanwhile."""

    on: Literal["input", "output", "both"] = Field("input", description="Which rows of an untied model.")
    anchor: float = Field(0.01, ge=0, description="Weight of the pull to where a row began.")
    norm: float = Field(0.01, ge=0, description="Weight against rows longer or shorter than published ones.")
    repulsion: float = Field(0.0, ge=0, description="Weight against rows with a cosine above 0.95.")
    start_step: int = Field(0, ge=0, description="Before it the text trains alone.")
    ramp_steps: int = Field(100, ge=0, description="Weights rise over so many steps, apart from the warm-up.")


class EvaluateTable(Table):
    """[evaluate]: when the held-out text is measured, and when that ends the job."""

    every_steps: PositiveInt = Field(100, description="Evaluate at these steps, at step 0 and at the end.")
    max_windows: PositiveInt | None = Field(None, description="Measure at most so many held-out windows.")
    patience: int | None = Field(None, ge=1, description="Stop after so many evaluations no better by min_delta.")
    min_delta: float = Field(0.0, ge=0, description="Nats, for patience; the best step is always the lowest loss.")
    stop_if: str | None = Field(None, description='A stop rule such as "val > 5.40 at 600".')
    expect: list[str] = Field(
        default_factory=list, description='Golden values of an earlier run: "val = 5.1486 at 900 within 0.001".'
    )
    hold_unexpected: bool = Field(False, description="Hold the job where one is missed, instead of a note alone.")
    prompt: str = Field("riverrun, past Eve and Adam's,", description="Start of the sample texts.")
    samples: int = Field(3, ge=0, le=50, description="Sample texts at the end of the job; 0 for none.")
    samples_every_steps: PositiveInt | None = Field(
        None, description="Write the sample texts at these steps too, each time from a saved checkpoint."
    )
    controls: list[str] = Field(
        default_factory=list,
        description="Texts of other kinds that no job trains on, 30 kB and more each: what is forgotten of them.",
    )
    hopes: bool = Field(
        True, description="At the end, measure what the job came to beside the untouched model (eval/hopes.md)."
    )

    @field_validator("stop_if")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None:
            parse_stop_rule(value)
        return value

    @field_validator("expect")
    @classmethod
    def _readable_values(cls, value: list[str]) -> list[str]:
        for line in value:
            parse_expectation(line)
        return value


class CheckpointTable(Table):
    """[checkpoint]: cadence. May change while a job runs; never changes the result."""

    every_steps: PositiveInt = Field(200, description="Milestones: a segment ends here.")
    max_loss_minutes: float = Field(5.0, gt=0, le=120, description="Rolling checkpoints come at least this often.")
    keep_milestones: int = Field(0, ge=0, description="Keep every n-th milestone; 0: the last two and the best.")


TrackerName = Literal["tensorboard", "trackio", "wandb", "mlflow"]  # each is a package of its own


class TrackTable(Table):
    """[track]: who else is told the figures of every step and evaluation, once each, by the runner."""

    to: list[TrackerName] = Field(default=[], description="Each needs its own package installed.")
    page: bool = Field(False, description="The report in the store too, made anew at each evaluation.")


class RunnerTable(Table):
    """[runner]: the daemon's part; the trainer never sees it."""

    priority: int = Field(0, ge=-1000, le=1000, description="Higher runs first.")
    max_attempts: PositiveInt = Field(10, description="Attempts in a row without a new durable step.")
