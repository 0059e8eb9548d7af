"""A study: job files and what is varied in them, as named jobs that one page compares."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.jobfile.overrides import Pair
from runner.jobfile.read import name_of, read_job, read_table
from wake2vec.contract.errors import Fault, SpecError

FORM = '"train.lr" = [1e-5, 2e-5], or run = { treatment = {}, control = { "morphemes.weight" = 0.0 } }'


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One job: a file, and what stands in place of some of its values."""

    name: str
    file: Path
    label: dict[str, Any]  # axis → value, for the table
    pairs: tuple[Pair, ...]


def read_study(path: Path) -> list[Variant]:
    """Every combination of what [vary] lists, for each job file in `of`. Raises SpecError."""
    table = read_table(path)
    files = table.get("of")
    files = [files] if isinstance(files, str) else files
    if not isinstance(files, list) or not files or not all(isinstance(file, str) for file in files):
        raise SpecError(str(path), [Fault(key="of", problem="expected a job file, or a list of them")])
    if odd := sorted(set(table) - {"of", "vary"}):
        raise SpecError(str(path), [Fault(key=odd[0], problem="unknown key; a study has of and [vary]")])
    axes = [list(_axis(path, key, value)) for key, value in table.get("vary", {}).items()]
    found = [
        _variant(path, path.parent / Path(file).expanduser(), choice, alone=len(files) == 1)
        for file in files
        for choice in itertools.product(*axes)
    ]
    if len({one.name for one in found}) < len(found):
        raise SpecError(str(path), [Fault(key="vary", problem="two of its jobs would have one name")])
    return found


def _axis(path: Path, key: str, value: Any) -> Iterator[tuple[str, Any, list[Pair]]]:
    """Axis, what it is called there, and the values that it sets."""
    if isinstance(value, list) and value:
        yield from ((key, one, [(key, one)]) for one in value)
    elif isinstance(value, dict) and value and all(isinstance(one, dict) for one in value.values()):
        yield from ((key, name, list(pairs.items())) for name, pairs in value.items())
    else:
        raise SpecError(str(path), [Fault(key=f"vary.{key}", problem=f"expected {FORM}")])


def _variant(path: Path, file: Path, choice: tuple[tuple[str, Any, list[Pair]], ...], *, alone: bool) -> Variant:
    parts = [path.stem, *([] if alone else [name_of(file)])]
    for axis, value, _ in choice:
        parts.append(str(value) if isinstance(value, str) else f"{axis.rpartition('.')[2]}-{value}")
    name = re.sub(r"[^\w.-]+", "_", "-".join(parts), flags=re.ASCII).lstrip("_.-")  # what a job may be called
    pairs = (("name", name), *(pair for _, _, pairs in choice for pair in pairs))
    label = {axis: value for axis, value, _ in choice} | ({} if alone else {"job": name_of(file)})
    return Variant(name=name, file=file, label=label, pairs=pairs)


def sources(variants: list[Variant]) -> list[Path]:
    """Job files beside those of a study that they build on, the first ones first."""
    found: dict[Path, None] = {}
    for one in variants:
        chain: list[Path] = []
        file = one.file
        while (after := read_job(file).after) and (file := file.with_name(f"{after}.toml")).is_file():
            chain.insert(0, file)
        found |= dict.fromkeys(chain)
    return list(found)
