"""What lies in the files and folders of an old run: one matrix of rows, one adapter, the words, the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from wake2vec.contract.errors import InputError
from wake2vec.contract.models.weight_files import ADAPTER_FILE
from wake2vec.takeover.files import read_pt, read_table, state_dict

_ADAPTER = (ADAPTER_FILE, "adapter_model.bin")
_STEPS = ("sentry_step_*.pt", "emb_step*.pt")
_MATRIX = "embed_tokens.weight"
_EXPECTED = (
    "sentry_step_NNNN.pt, embeddings.pt, embed_tokens.pt, emb_stepNNNN.pt, added_tokens.json, tokenizer.json, or a "
    "folder with one of these or with adapter_config.json"
)


@dataclass(frozen=True, kw_only=True)
class OldRows:
    """An embedding matrix, or a part of one; `first_id` where the file itself says what its first row belongs to."""

    path: Path
    key: str
    tensor: Tensor  # [rows, d], still on disk
    first_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class OldAdapter:
    """LoRA halves by module, as `model.layers.0.self_attn.q_proj.lora_A`."""

    path: Path
    halves: Mapping[str, Tensor]
    config: Mapping[str, Any]

    @property
    def is_idle(self) -> bool:
        """Whether it changes nothing: P1 scripts carried a LoRA of rank 1 that never trained."""
        return all(not tensor.any() for name, tensor in self.halves.items() if name.endswith("lora_B"))


@dataclass(frozen=True, kw_only=True)
class OldWords:
    """Token → id, of a tokenizer that the old run saved."""

    path: Path
    ids: Mapping[str, int]


@dataclass(kw_only=True)
class Found:
    rows: list[OldRows] = field(default_factory=list)
    adapters: list[OldAdapter] = field(default_factory=list)
    words: list[OldWords] = field(default_factory=list)
    steps: dict[int, Path] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OldRun:
    rows: OldRows | None
    adapter: OldAdapter | None
    words: OldWords | None
    step: int | None


def find(places: Sequence[Path]) -> OldRun:
    """Everything in what the user named. Raises InputError for what cannot be read, and for two of a kind."""
    found = Found()
    for place in places:
        if place.is_dir():
            _look_into(place, found)
        elif place.is_file():
            _look_at(place, found)
        else:
            raise InputError(place, "no such file or folder", f"name what the old run saved: {_EXPECTED}")
    for kind, what in ((found.rows, "matrices of rows"), (found.adapters, "adapters")):
        if len(kind) > 1:
            names = " and ".join(str(one.path) for one in kind[:2])
            raise InputError(names, f"two {what}", "name the one that the new job begins with")
    if not found.rows and not found.adapters:
        raise InputError(", ".join(map(str, places)), "holds neither rows nor an adapter", f"name {_EXPECTED}")
    return OldRun(
        rows=found.rows[0] if found.rows else None,
        adapter=found.adapters[0] if found.adapters else None,
        words=found.words[0] if found.words else None,
        step=max(found.steps, default=None),
    )


def _look_at(path: Path, found: Found) -> None:
    if path.suffix == ".json":
        found.words.append(_words(path))
        return
    if path.suffix not in (".pt", ".pth", ".bin"):
        raise InputError(path, "is nothing that can be taken over", f"name {_EXPECTED}")
    value = read_pt(path)
    found.rows.append(_rows(path, value))
    if isinstance(value, Mapping) and isinstance(value.get("step"), int):
        found.steps[value["step"]] = path


def _look_into(folder: Path, found: Found) -> None:
    before = (len(found.rows), len(found.adapters), len(found.words))
    adapter = next((folder / name for name in _ADAPTER if (folder / name).is_file()), None)
    matrix = next((folder / name for name in ("embeddings.pt", "embed_tokens.pt") if (folder / name).is_file()), None)
    if matrix is not None:
        _look_at(matrix, found)
    if (folder / "adapter_config.json").is_file():
        if adapter is None:
            problem = f"has an adapter_config.json but no {ADAPTER_FILE} beside it: a half-copied folder"
            raise InputError(folder, problem, "take an older checkpoint, or copy it again")
        _take_adapter(adapter, found, with_matrix=matrix is None)
    words = next((folder / name for name in ("added_tokens.json", "tokenizer.json") if (folder / name).is_file()), None)
    if words is not None:
        found.words.append(_words(words))
    _step(folder, found)
    if before == (len(found.rows), len(found.adapters), len(found.words)):
        _take_only_step(folder, found)


def _take_only_step(folder: Path, found: Found) -> None:
    steps = sorted((path for name in _STEPS for path in folder.glob(name)), key=lambda path: path.stat().st_mtime)
    if not steps:
        raise InputError(folder, "holds nothing that can be taken over", f"name {_EXPECTED}")
    if len(steps) > 1:
        remedy = f"name the one that the new job begins with; the newest is {steps[-1].name}"
        raise InputError(folder, f"holds the rows of {len(steps)} steps", remedy)
    _look_at(steps[0], found)


def _take_adapter(path: Path, found: Found, *, with_matrix: bool) -> None:
    """Halves by module; PEFT put the resized matrix beside them by itself, whether or not it had changed."""
    halves: dict[str, Tensor] = {}
    for name, tensor in state_dict(path).items():
        plain = name.removeprefix("base_model.model.").removesuffix(".weight")
        if ".lora_" in plain:
            halves[plain.replace(".default", "")] = tensor
        elif with_matrix and name.endswith(_MATRIX):
            found.rows.append(OldRows(path=path, key=name, tensor=tensor))
    if halves:
        config = read_table(path.with_name("adapter_config.json"))
        found.adapters.append(OldAdapter(path=path, halves=halves, config=config))


def _rows(path: Path, value: Any) -> OldRows:
    if isinstance(value, Tensor):
        return _matrix(path, "the tensor", value)
    if isinstance(value, Mapping) and "embeddings" in value:
        start, count = value.get("wake_start"), value.get("num_wake")
        rows = _matrix(path, "embeddings", value["embeddings"])
        if count is not None and rows.tensor.shape[0] != count:
            problem = f"num_wake is {count}, but embeddings has shape {tuple(rows.tensor.shape)}"
            raise InputError(path, problem, "the file contradicts itself: take an older one")
        return OldRows(path=path, key="embeddings", tensor=rows.tensor, first_id=start)
    matrices = [name for name, one in value.items() if _is_matrix(one)] if isinstance(value, Mapping) else []
    if len(matrices) == 1:
        return _matrix(path, str(matrices[0]), value[matrices[0]])
    holds = ", ".join(map(str, list(value)[:8])) if isinstance(value, Mapping) else type(value).__name__
    raise InputError(path, f"holds no single embedding matrix, but {holds or 'nothing'}", f"name {_EXPECTED}")


def _matrix(path: Path, key: str, value: Any) -> OldRows:
    if not _is_matrix(value):
        shape = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(path, f"{key} is {shape}, no embedding matrix [rows, d]", f"name {_EXPECTED}")
    return OldRows(path=path, key=key, tensor=value.detach())


def _is_matrix(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2 and value.is_floating_point() and value.numel() > 0


def _words(path: Path) -> OldWords:
    """Of added_tokens.json (token → id) or of tokenizer.json (a list of added tokens)."""
    table = read_table(path)
    listed = table.get("added_tokens") if path.name == "tokenizer.json" else None
    try:
        ids = {one["content"]: int(one["id"]) for one in listed} if listed is not None else dict(table)
    except (TypeError, KeyError, ValueError):
        ids = {}
    if not ids or not all(isinstance(id_, int) for id_ in ids.values()):
        raise InputError(path, "names no added tokens with their ids", "give the tokenizer folder of the old run")
    return OldWords(path=path, ids=ids)


def _step(folder: Path, found: Found) -> None:
    if (folder / "trainer_state.json").is_file():
        step = read_table(folder / "trainer_state.json").get("global_step")
    elif (folder / "training_state.pt").is_file():
        state = read_pt(folder / "training_state.pt")
        step = state.get("global_step") if isinstance(state, Mapping) else None
    else:
        return
    if isinstance(step, int):
        found.steps[step] = folder
