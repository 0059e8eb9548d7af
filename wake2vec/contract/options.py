"""What can be asked of each tool that uses a trained job: declared here once, handed over as JSON. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from wake2vec.contract.errors import Fault, SpecError

T = TypeVar("T", bound="Options")


def _one_of(*words: str) -> AfterValidator:
    """Also a number of a step."""

    def check(value: str) -> str:
        if value not in words and not (value.isascii() and value.isdecimal()):
            raise ValueError(f"expected the number of a step, {' or '.join(words)}, got {value!r}")
        return value

    return AfterValidator(check)


class Options(BaseModel):
    """The options of one tool, a module whose `run` takes them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    tool: ClassVar[str]

    @classmethod
    def of(cls: type[T], **asked: Any) -> T:
        """None asks for the default. Raises SpecError for what the tool does not know."""
        try:
            return cls(**{name: value for name, value in asked.items() if value is not None})
        except ValidationError as error:
            faults = [
                Fault(key=f"--{one['loc'][0]}".replace("_", "-"), problem=one["msg"].removeprefix("Value error, "))
                for one in error.errors()
            ]
            raise SpecError(cls.name(), faults) from error

    @classmethod
    def name(cls) -> str:
        return cls.__name__.removesuffix("Options").lower()

    @property
    def needs(self) -> str | None:
        """The step of a job whose weights the tool uses: a number, best, newest or final; None where it uses none."""
        return getattr(self, "step", None)


class BlindOptions(Options):
    tool = "wake2vec.hopes.blind"
    run: Path
    to: Path | None = None  # None: in the run's eval folder
    count: int = 8  # passages of each kind
    words: int = 60  # of a passage, at most
    step: Annotated[str, _one_of("best", "final", "newest")] = "newest"
    seed: int = 0
    temperature: float = 0.9
    device: str | None = None
    score: Path | None = None  # a sheet that is filled in, beside its key; nothing is written then
    as_json: bool = False

    @property
    def needs(self) -> str | None:
        return self.step if self.score is None else None


class ExportOptions(Options):
    tool = "wake2vec.use.export"
    run: Path
    out: Path
    merge: bool = False
    adapter_only: bool = False
    dtype: Literal["fp32", "fp16", "bf16"] | None = None  # None: as published
    gguf: Literal["f32", "f16", "q8_0"] | None = None  # None: a folder for transformers
    step: Annotated[str, _one_of("best", "final")] = "final"


class GenerateOptions(Options):
    tool = "wake2vec.use.generate"
    run: Path
    prompt: str | None = None  # None: the job's
    chat: bool = False  # prompts come from standard input, a line each
    step: Annotated[str, _one_of("best", "final", "newest")] = "newest"
    count: int = 1  # texts, each with the next seed
    seed: int = 0
    temperature: float = 0.9
    top_p: float = 0.92
    top_k: int = 50
    repetition_penalty: float = 1.15
    tokens: int = 200
    device: str | None = None  # None: the card, where there is one
    as_json: bool = False


class GeometryOptions(Options):
    tool = "wake2vec.show.geometry.__main__"
    run: Path
    step: int | None = None  # None: the newest
    side: Literal["input", "output"] = "input"

    @property
    def needs(self) -> str | None:
        return "newest" if self.step is None else str(self.step)


class HopesOptions(Options):
    tool = "wake2vec.hopes.__main__"
    run: Path
    step: Annotated[str, _one_of("best", "final", "newest")] = "newest"
    device: str | None = None
    as_json: bool = False


class MorphemesOptions(Options):
    tool = "wake2vec.vocab.derive"
    derive: bool = False
    groups: Path | None = None  # a group file to look at, where nothing is derived
    lexicon: Path | None = None
    corpora: list[Path] = []
    affixes: Path | None = None  # None: those of English and its neighbours
    least: int = 3  # pairs of a group
    cap: int = 250
    out: Path | None = None
    as_json: bool = False


class ReportOptions(Options):
    tool = "wake2vec.show.report.__main__"
    out: Path
    runs: list[Path]
    facts: Path | None = None  # JSON of what the runner's database knows


class SurveyOptions(Options):
    tool = "wake2vec.vocab.survey"
    lexicon: Path
    model: str
    corpora: list[Path] = []
    match: Literal["word", "anywhere"] = "word"
    case: Literal["as-is", "also-capitalised"] = "as-is"
    forms: Literal["one", "shared", "separate"] = "one"
    line_breaks: Literal["keep", "join", "auto"] = "keep"
    hyphens: Literal["keep", "mend"] = "keep"
    as_json: bool = False


class TakeoverOptions(Options):
    tool = "wake2vec.takeover.__main__"
    order: Path  # of the job that is to begin with what is taken over
    out: Path
    old: list[Path]


KINDS: tuple[type[Options], ...] = (
    BlindOptions,
    ExportOptions,
    GenerateOptions,
    GeometryOptions,
    HopesOptions,
    MorphemesOptions,
    ReportOptions,
    SurveyOptions,
    TakeoverOptions,
)
TOOLS = {kind.name(): kind for kind in KINDS}
