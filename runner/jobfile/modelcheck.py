"""What can be known of a model before it is loaded: from its config, its tokenizer and the headers of its weights."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wake2vec.contract.errors import Fault, ModelError, first_line
from wake2vec.contract.models.families import BNB4, longest, refusal, stored_as, undealt
from wake2vec.contract.models.model_shapes import LAYERS
from wake2vec.contract.models.targets import fitting_targets, has_experts
from wake2vec.contract.models.weight_files import ADAPTER_FILE, INDEX, INPUT, OUTPUT, SINGLE, is_called, read_header
from wake2vec.contract.spec import TrainingSpec
from wake2vec.contract.tables import LoraTable

CONVERT = (
    'python -c "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
    "[one.from_pretrained('{place}').save_pretrained('{place}') for one in (M, T)]\""
)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A model folder, as far as it can be read without loading it."""

    config: Mapping[str, Any]
    shapes: Mapping[str, Sequence[int]]  # of its tensors
    vocabulary: Mapping[str, int]  # of its tokenizer; nothing where only a library could tell

    @property
    def tokens(self) -> int:
        """How many rows the tokenizer needs."""
        return max(len(self.vocabulary), max(self.vocabulary.values(), default=-1) + 1)


def look(folder: Path) -> Seen:
    """Raises ModelError for a folder that nothing can load."""
    return Seen(config=read_object(folder / "config.json"), shapes=_shapes(folder), vocabulary=vocabulary(folder))


def model_faults(job: TrainingSpec, place: str, seen: Seen) -> list[Fault]:
    """Why the job can never run on this model; empty when it can."""
    faults = config_faults(job, seen.config, place)
    if job.train.spread == "layers" and (fault := _not_dealt_out(job, seen, place)):
        faults.append(fault)
    rows = _rows(seen, (*INPUT, *OUTPUT))
    if rows and seen.tokens > min(rows):
        problem = f"{place}: its tokenizer has {seen.tokens} tokens, its matrices {min(rows)} rows"
        faults.append(Fault(key="model.base", problem=f"{problem}; use the tokenizer that belongs to the model"))
    if two := _two_models(seen):
        faults.append(Fault(key="model.base", problem=f"{place}: {two}; download it again"))
    sides = [any(is_called(name, side) for name in seen.shapes) for side in (INPUT, OUTPUT)]
    if seen.config.get("tie_word_embeddings") is False and sides == [True, False]:
        problem = f"{place}: its files have no output matrix, and its config says that it has one of its own"
        faults.append(Fault(key="model.base", problem=f"{problem}; set tie_word_embeddings, or download it again"))
    return faults


def _not_dealt_out(job: TrainingSpec, seen: Seen, place: str) -> Fault | None:
    """Why the layers of the model will not lie on several cards, although the job says so."""
    cards, layers = job.train.cards, _layers(seen)
    if cards == 1:
        problem = '"layers" are dealt out to two cards or more, and train.cards is 1; set that to "auto", 2 or more'
        return Fault(key="train.spread", problem=problem)
    if layers and cards != "auto" and cards > layers:
        return Fault(
            key="train.cards", problem=f"{cards} cards for the {layers} layers of {place}; give at most {layers}"
        )
    if why := undealt(seen.config, seen.shapes, trust_remote_code=job.model.trust_remote_code):
        problem = f'{place}: its layers cannot be dealt out to several cards: {why}; set it to "samples"'
        return Fault(key="train.spread", problem=problem)
    return None


def _layers(seen: Seen) -> int:
    return next((int(seen.config[key]) for key in LAYERS if seen.config.get(key)), 0)


def _rows(seen: Seen, names: tuple[str, ...]) -> list[int]:
    """Of its whole matrices; in 4 bits one is a column of bytes."""
    shapes = [shape for name, shape in seen.shapes.items() if is_called(name, names)]
    return [shape[0] for shape in shapes if len(shape) == 2 and shape[1] > 1]


def _two_models(seen: Seen) -> str:
    """Where config and weights say two things."""
    rows, vocabulary = _rows(seen, INPUT), seen.config.get("vocab_size")
    if rows and vocabulary is not None and rows[0] != vocabulary:
        return f"its config.json says vocab_size = {vocabulary}, its input matrix has {rows[0]} rows"
    numbers = {next(part for part in name.split(".") if part.isdigit()) for name in linears(seen)}
    layers = _layers(seen)
    return f"its config.json says {layers} layers, its files have {len(numbers)}" if 0 < len(numbers) < layers else ""


def config_faults(job: TrainingSpec, config: Mapping[str, Any], place: str) -> list[Fault]:
    """What config.json alone tells."""
    faults = []
    if no := refusal(config, trust_remote_code=job.model.trust_remote_code):
        faults.append(Fault(key="model.base", problem=f"{place}: {no.problem}; {no.remedy}"))
    limit = longest(config)
    if limit is not None and job.data.seq_len > limit:
        problem = f"{job.data.seq_len}, but the model has positions for {limit} tokens; give at most that"
        faults.append(Fault(key="data.seq_len", problem=problem))
    return faults


def fit_targets(lora: LoraTable, seen: Seen) -> tuple[LoraTable, list[Fault]]:
    """The adapters with the names that this model has for the layers of the default list."""
    modules = linears(seen)
    if not modules:
        return lora, []
    try:
        targets = fitting_targets(lora.targets, modules, experts=has_experts(seen.shapes))
    except ModelError as error:
        return lora, [Fault(key="lora.targets", problem=f"{error.problem}; {error.remedy}")]
    return lora.model_copy(update={"targets": targets}), []


def linears(seen: Seen) -> list[str]:
    """Matrices of the layers: they have a number in their name."""
    return [
        name.removesuffix(".weight")
        for name, shape in seen.shapes.items()
        if name.endswith(".weight") and len(shape) == 2 and any(part.isdigit() for part in name.split("."))
    ]


def notes(seen: Seen) -> list[str]:
    """What a person should know although the job can run."""
    if stored_as(seen.config) != BNB4:
        return []
    return ["the model is stored in 4 bits: it is trained as it is, and `export --merge` writes whole weights"]


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object. Raises ModelError."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        remedy = "give the folder that save_pretrained wrote"
        raise ModelError(path, f"not JSON: {first_line(error)}", remedy) from error
    if not isinstance(found, dict):
        raise ModelError(path, f"holds {type(found).__name__}, not an object", "download the model again")
    return found


def _shapes(folder: Path) -> dict[str, Sequence[int]]:
    shapes: dict[str, Sequence[int]] = {}
    for name in weight_files(folder, {path.name for path in folder.iterdir() if path.is_file()}, str(folder)):
        shapes |= {tensor: entry.shape for tensor, entry in read_header(folder / name).items()}
    if not shapes:
        raise ModelError(folder, "no tensors in its weights", "copy the model again")
    return shapes


def weight_files(folder: Path, names: Collection[str], place: str) -> list[str]:
    """The files that training reads, of those that there are; an index lies in `folder`.

    Raises ModelError where there are none, or one of them is missing.
    """
    if INDEX in names:
        table = read_object(folder / INDEX).get("weight_map")
        files = sorted({str(file) for file in table.values()}) if isinstance(table, dict) else []
        if not files:
            raise ModelError(folder / INDEX, "names no files", "download the model again")
        if lost := [file for file in files if file not in names]:
            raise ModelError(place, f"{lost[0]} is missing, which {INDEX} names", "download the model again")
        return files
    if SINGLE in names:
        return [SINGLE]
    raise ModelError(place, *_without_weights(place, names))


def _without_weights(place: str, names: Collection[str]) -> tuple[str, str]:
    """What is there instead, and what can be done with it."""
    for ending in (".bin", ".pt", ".pth", ".ckpt"):
        if any(name.endswith(ending) and name != "training_args.bin" for name in names):
            remedy = f"convert it, if you trust it: {CONVERT.format(place=place)}"
            return f"its weights are pickles (*{ending}), which can run code; none is ever read", remedy
    if any(name.endswith(".gguf") for name in names):
        return "its weights are a GGUF file, which cannot be trained through", "take the model that it was made from"
    if ADAPTER_FILE in names:
        return "is an adapter, not a model", "merge it into its model first (PEFT: merge_and_unload, save_pretrained)"
    return f"no weights in it ({SINGLE}, or {INDEX} and its files)", "give the folder that save_pretrained wrote"


def vocabulary(folder: Path) -> dict[str, int]:
    """Each token with its id; nothing where only a library could tell. Raises ModelError."""
    if (folder / "tokenizer_config.json").is_file():
        read_object(folder / "tokenizer_config.json")
    try:
        return {str(token): int(id) for token, id in _tokens(folder)}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(folder / "tokenizer.json", "is no tokenizer of transformers", "download it again") from error


def _tokens(folder: Path) -> Iterator[tuple[str, int]]:
    if (folder / "tokenizer.json").is_file():
        table = read_object(folder / "tokenizer.json")
        vocab = table["model"]["vocab"]
        yield from vocab.items() if isinstance(vocab, dict) else ((entry[0], id) for id, entry in enumerate(vocab))
        yield from ((entry["content"], entry["id"]) for entry in table.get("added_tokens") or ())
    elif (folder / "vocab.json").is_file():
        yield from read_object(folder / "vocab.json").items()
        if (folder / "added_tokens.json").is_file():
            yield from read_object(folder / "added_tokens.json").items()
